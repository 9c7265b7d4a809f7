"""Chat templates write what transformers writes, with one date, closed thoughts and all that precedes an answer."""

import copy
import json

import pytest

from nexttoken.errors import UserError
from nexttoken.models.load import load_tokenizer
from nexttoken.prompts.chat_templates import TEMPLATES, ChatTemplate, choose_template
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import ModelSettings
from nexttoken.types import Example, Message

USER, ANSWER = Message("user", "Hi"), Message("assistant", " yes ")
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
LABELS = Prompt("{{ q[0] }}", "", ["A", "B"], chat=True)
TEXTS = Prompt("{{ q[0] }}", "", chat=True)


def example(**more) -> Example:
    return Example("1", {"q": ("Hi",)}, **more)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("opens", [True, False])
def test_templates_write_what_transformers_writes(chat_tokenizer, name, opens):
    turns = [USER, ANSWER, USER]
    expected = chat_tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns],
        chat_template=TEMPLATES[name],
        tokenize=False,
        add_generation_prompt=opens,
    )
    assert ChatTemplate(TEMPLATES[name], chat_tokenizer.special_tokens_map)(turns, opens) == expected


def test_the_tags_of_training_and_loop_controls_are_known():
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content|tojson }}{% endgeneration %}{% endfor %}"
    )
    assert ChatTemplate(source, {})((Message("system", "x"), Message("user", "é<")), False) == '"é<"'


@pytest.mark.parametrize("named", [{"default": TURNS, "tool_use": "T"}, {"rag": TURNS}])
def test_of_several_templates_the_default_is_used(chat_tokenizer, named):
    chat_tokenizer.chat_template = named
    assert choose_template("", chat_tokenizer).source == TURNS
    assert Encoder(chat_tokenizer, LABELS, 99).encode([example(label=0)]).prompts[0].text.startswith("<|im_start|>user")


def test_several_templates_can_be_named_and_need_a_name_without_a_default(chat_tokenizer):
    chat_tokenizer.chat_template = {"tool_use": "T", "rag": TURNS}
    assert choose_template("rag", chat_tokenizer).source == TURNS
    assert choose_template("chatml", chat_tokenizer).source == TEMPLATES["chatml"]
    with pytest.raises(
        UserError, match=r"the chat templates rag, tool_use and no default; .*prompt\.chat_template=rag"
    ):
        Encoder(chat_tokenizer, LABELS, 99)
    with pytest.raises(UserError, match=r"prompt\.chat_template='tool_us' is not known; did you mean 'tool_use'"):
        choose_template("tool_us", chat_tokenizer)


def test_several_templates_of_a_folder(chat_tokenizer, tmp_path):
    several = {"default": TURNS + OPEN + "{% endif %}", "tool_use": "T"}
    chat_tokenizer.chat_template = several
    chat_tokenizer.save_pretrained(tmp_path / "files")  # a template a file
    chat_tokenizer.save_pretrained(tmp_path / "list", save_jinja_files=False)
    as_list = json.loads((tmp_path / "list" / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    assert isinstance(as_list, list)
    for name in ("files", "list"):
        loaded = load_tokenizer(ModelSettings(name_or_path=str(tmp_path / name)), ())
        assert choose_template("", loaded).source == several["default"]


def test_the_date_is_the_same_every_day():
    source = "{% if date_string is not defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{{ messages[0].content }}"
    assert ChatTemplate(source, {})((USER,), False) == "26 Jul 2024Hi"


@pytest.mark.parametrize("thought", ["<think>", "<think>\n", "<think>\n\n", "<seed:think>", "[THINK]", "<reasoning>\n"])
def test_an_opened_thought_is_closed_before_the_answer(chat_tokenizer, thought):
    """As DeepSeek-R1's: its answered turns have no thought."""
    chat_tokenizer.chat_template = TURNS + OPEN + thought + "{% endif %}"
    mark = thought.strip()
    closed = f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{mark}\n\n{mark[0]}/{mark[1:]}\n\n"
    (prompt,) = Encoder(chat_tokenizer, LABELS, 200).encode([example(label=0)]).prompts
    assert prompt.text == closed.replace("\n\n", "\n\n\n", 1) if thought.endswith("\n\n") else prompt.text == closed
    encoder = TextEncoder(chat_tokenizer, TEXTS, 200)
    row = encoder.encode([example(answer="good")]).prompts[0]
    assert chat_tokenizer.decode(row.token_ids[row.learnt]) == "good<|im_end|>"
    (asked,) = encoder.encode_prompts([example()], 10).prompts
    assert row.token_ids[: len(asked.token_ids)].tolist() == asked.token_ids.tolist()
    assert asked.text == prompt.text


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("◁think▷", "◁/think▷"),
        ("<|think|>", "<|/think|>"),
        ('<think budget="9">', "</think>"),
    ],
)
def test_an_opened_thought_is_closed_in_its_own_spelling(opened, closed):
    source = TURNS + OPEN + opened + "{% endif %}"
    assert ChatTemplate(source, {})((USER,)).endswith(f"{opened}\n\n{closed}\n\n")


def test_tools_and_documents_are_none_as_in_transformers():
    source = "{% if tools is not none or documents is not none %}TOOLS{% endif %}{{ messages[0].content }}"
    assert ChatTemplate(source, {})((USER,), False) == "Hi"


@pytest.mark.parametrize("written", ["<think>\n\n</think>\n\n", "<|channel|>final<|message|>"])
def test_what_a_template_writes_before_an_answer_belongs_to_the_prompt(chat_tokenizer, written):
    """As Qwen3-Thinking's and gpt-oss's: their answered turns begin with more than an opened one."""
    turns = TURNS.replace(
        "{{ m.content }}", f"{{% if m.role == 'assistant' %}}{written}{{% endif %}}{{{{ m.content }}}}"
    )
    opened = OPEN + ("<think>\n" if "think" in written else "") + "{% endif %}"
    chat_tokenizer.chat_template = turns + opened
    text = f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{written}"
    assert Encoder(chat_tokenizer, LABELS, 200).encode([example(label=0)]).prompts[0].text == text
    row = TextEncoder(chat_tokenizer, TEXTS, 200).encode([example(answer="good")]).prompts[0]
    assert chat_tokenizer.decode(row.token_ids[row.learnt]) == "good<|im_end|>"
    assert "".join(row.text.split("<|bos|>")) == f"{text}good<|im_end|>\n"[:-1]


def test_an_answer_cue_of_the_template_is_read_and_not_learnt(chat_tokenizer):
    chat_tokenizer.chat_template = TURNS + OPEN + "Answer: {% endif %}"
    row = TextEncoder(chat_tokenizer, TEXTS, 200).encode([example(answer="good")]).prompts[0]
    assert row.text.endswith("assistant\nAnswer: good<|im_end|>")
    assert chat_tokenizer.decode(row.token_ids[row.learnt]) == "good<|im_end|>"


def test_a_template_that_tells_no_roles_apart_gets_nothing_added(chat_tokenizer):
    source = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    assert ChatTemplate(source, {"bos_token": "<s>"})((USER,)) == "<s>[INST] Hi [/INST]"


def test_an_endless_template_is_refused_before_any_row(chat_tokenizer):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match="the chat template takes more than 200,000 steps"):
        Encoder(tokenizer, LABELS, 200)
