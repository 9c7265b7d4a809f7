"""Texts in the data are text: they never become special tokens or a chat template's marks."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from conftest import TEXTS as LEARNT
from nexttoken.models.scratch import learn_bpe
from nexttoken.prompts.chat_templates import TEMPLATES
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.special_tokens import ZERO_WIDTH_SPACE, Disarm
from nexttoken.settings import ScratchSettings
from nexttoken.types import Example

MARKS = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|start_header_id|>"]
OTHERS = ["<|end_header_id|>", "<\uff5cUser\uff5c>", "[INST]", "[/INST]", "<think>", "<tool_call>", "<<SYS>>", "<SYS>"]
ADDED = [*MARKS, *OTHERS]
WORDS = ["<table>", "  ", "\n\n", "COVID-19", "</h1>"]
INSTRUCT = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
COMPOSED = "{% for m in messages %}{{ '<|' + m.role + '|>' }}{{ m.content }}{{ eos_token }}{% endfor %}"
CHATS = {**TEMPLATES, "inst": INSTRUCT, "composed": COMPOSED}


def build(special: bool):
    tokenizer = learn_bpe(ScratchSettings(vocab_size=400), LEARNT)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=special) for text in ADDED])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in WORDS])
    return tokenizer


TOKENIZERS = {special: build(special) for special in (True, False)}
PIECES = st.lists(
    st.sampled_from([*ADDED, *WORDS, "<", "|>", "<|im_", "SYS>>", "[", " word ", "<|user|>", "é"]), max_size=12
)
TEXT = PIECES.map("".join)


@settings(max_examples=60)
@given(st.sampled_from(sorted(CHATS)), st.booleans(), TEXT, TEXT, TEXT)
def test_no_text_of_the_data_becomes_a_control_token(name, special, question, option, passage):
    tokenizer = copy.deepcopy(TOKENIZERS[special])
    tokenizer.chat_template = CHATS[name]
    user = "{{ q[0] }}|{{ options | join('|') }}|{{ passages | join('|') }}"
    prompt = Prompt(user, "", ["A", "B"], options="options", chat=True)
    encoder = Encoder(tokenizer, prompt, 4000)
    empty, row = (
        Example(
            "1",
            {"q": (a,), "options": ("x", b), "passages": (c,)},
            0,
            demonstrations=(Example("2", {"q": (a,), "options": ("y", b)}, 1),),
        )
        for a, b, c in (("q", "o", "p"), (question + "q", option + "o", passage + "p"))
    )
    (plain,), (hostile,) = (encoder.encode([one]).prompts for one in (empty, row))
    control = encoder.disarm.ids
    assert [id for id in hostile.token_ids if id in control] == [id for id in plain.token_ids if id in control]
    bos = "<|bos|>"
    assert tokenizer.decode(hostile.token_ids).removeprefix(bos) == hostile.text.removeprefix(bos)
    shown = hostile.text.replace(ZERO_WIDTH_SPACE, "")
    assert question.strip() in shown
    assert passage.strip() in shown


@settings(max_examples=30)
@given(st.booleans(), TEXT, TEXT)
def test_no_answer_becomes_a_control_token(special, question, answer):
    tokenizer = copy.deepcopy(TOKENIZERS[special])
    tokenizer.chat_template = CHATS["chatml"]
    encoder = TextEncoder(tokenizer, Prompt("{{ q[0] }}", "", chat=True), 4000)
    row = encoder.encode([Example("1", {"q": (question,)}, answer=answer + "a")]).prompts[0]
    marks = [tokenizer.convert_ids_to_tokens(int(id)) for id in row.token_ids if id in encoder.disarm.ids]
    assert marks == ["<|bos|>", "<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]
    assert row.token_ids[row.learnt][-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("special", [True, False])
def test_a_mark_that_is_no_special_token_ends_an_answer(special):
    encoder = TextEncoder(TOKENIZERS[special], Prompt("{{ q[0] }}", "", chat=True, chat_template="chatml"), 400)
    assert encoder.ends[-1] == TOKENIZERS[special].convert_tokens_to_ids("<|im_end|>")
    row = encoder.encode([Example("1", {"q": ("x",)}, answer="good")]).prompts[0]
    assert TOKENIZERS[special].decode(row.token_ids[row.learnt]) == "good<|im_end|>"


@pytest.mark.parametrize("text", [*WORDS, "a < b", "<p>html</p>", "x[0] <y>", "[1, 2]", "**bold**"])
def test_words_white_space_and_html_stay_as_they_are(text):
    assert Disarm(TOKENIZERS[False])(Example("1", {"q": (text,)}))[0].fields["q"] == (text,)


def test_a_mark_inside_a_mark_is_broken_too():
    disarm = Disarm(TOKENIZERS[False])
    clean, number = disarm(Example("1", {"q": ("<<SYS>><SYS>",)}))
    assert not disarm.special.search(clean.fields["q"][0])
    assert number == 3


def test_marks_that_a_template_writes_as_text_are_marks():
    encoder = Encoder(TOKENIZERS[True], Prompt("{{ q[0] }}", "", ["A", "B"]), 99)
    assert not encoder.disarm.special.search("<|user|>")
    tokenizer = copy.deepcopy(TOKENIZERS[True])
    tokenizer.chat_template = COMPOSED
    chat = Encoder(tokenizer, Prompt("{{ q[0] }}", "", ["A", "B"], chat=True), 99)
    assert chat.encode([Example("1", {"q": ("<|user|>x",)}, 0)]).prompts[0].text.count("<|user|>") == 1


def test_full_width_letters_do_not_become_marks():
    tokenizer = copy.deepcopy(TOKENIZERS[False])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken("<|x_mark|>", normalized=True)])
    encoder = Encoder(tokenizer, Prompt("{{ q[0] }}", "", ["A", "B"]), 99)
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "<|x_mark|>")
    ids = encoder.encode([Example("1", {"q": (wide,)}, 0)]).prompts[0].token_ids
    assert tokenizer.convert_tokens_to_ids("<|x_mark|>") not in ids
