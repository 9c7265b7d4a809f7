"""Encoded prompts: within the budget, ending in the cue, one opening token, no special tokens from data."""

import copy
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from nexttoken.errors import UserError
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.special_tokens import ZERO_WIDTH_SPACE
from nexttoken.types import Example

CUE = "### Answer\n"
TURNS = '### "{{ q }}"\nA: {{ a }}\nB: {{ b }}\n'
USER = "Which is better?\n{% for q, a, b in zip(prompt, response_a, response_b) %}\n" + TURNS + "{% endfor %}\n"
PLAIN = Prompt(USER, CUE, ["A", "B", "tie"])
CHAT = Prompt(PLAIN.user, CUE, PLAIN.labels, system="You judge.", chat=True)


def example(*turns: tuple[str, str, str], example_id: str = "1") -> Example:
    fields = dict(zip(("prompt", "response_a", "response_b"), zip(*turns, strict=True), strict=True))
    return Example(example_id, fields, label=0)


def encode_one(encoder: Encoder, one: Example):
    encoded = encoder.encode([one])
    return encoded.prompts[0], encoded


def test_text_without_a_chat_template(scratch):
    prompt, encoded = encode_one(Encoder(scratch.tokenizer, PLAIN, 256), example(("Hi", "Hello", "")))
    assert prompt.text == 'Which is better?\n### "Hi"\nA: Hello\nB: \n### Answer\n'
    assert prompt.token_ids.dtype == np.int32
    assert scratch.tokenizer.decode(prompt.token_ids) == "<|bos|>" + prompt.text
    assert encoded.counts() == {"num_truncated": 0, "num_disarmed": 0}


def test_a_system_message_without_a_chat_template_stands_on_top(scratch):
    prompt = Prompt("{{ q[0] }}\n", CUE, ("a", "b"), system="You judge.")
    assert Encoder(scratch.tokenizer, prompt, 256).text(Example("", {"q": ("x",)})) == "You judge.\n\nx\n### Answer\n"


def test_text_with_a_chat_template(chat_tokenizer):
    prompt, _ = encode_one(Encoder(chat_tokenizer, CHAT, 256), example(("Hi", "Hello", ""), ("Why?", "So", "No")))
    assert prompt.text == (
        "<|im_start|>system\nYou judge.<|im_end|>\n"
        '<|im_start|>user\nWhich is better?\n### "Hi"\nA: Hello\nB: \n### "Why?"\nA: So\nB: No\n<|im_end|>\n'
        "<|im_start|>assistant\n### Answer\n"
    )
    start, end = chat_tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [t for t in prompt.token_ids if t in (start, end)] == [start, end, start, end, start]


def test_a_chat_template_that_is_missing_or_refuses(scratch, chat_tokenizer):
    with pytest.raises(UserError, match=r"no chat template; name one"):
        Encoder(scratch.tokenizer, CHAT, 256)
    chat_tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match=r"System role not supported; try prompt\.system=''"):
        Encoder(chat_tokenizer, CHAT, 256).encode([example(("q", "a", "b"))])


def special_counts(tokenizer, ids) -> dict[str, int]:
    return {token: list(ids).count(tokenizer.convert_tokens_to_ids(token)) for token in tokenizer.all_special_tokens}


def test_one_bos_whoever_writes_it(chat_tokenizer):
    chat_tokenizer.chat_template = "{{ bos_token }}" + chat_tokenizer.chat_template
    for encoder in (Encoder(chat_tokenizer, PLAIN, 256), Encoder(chat_tokenizer, CHAT, 256)):
        ids = encode_one(encoder, example(("Hi", "", "")))[0].token_ids
        assert ids[0] == chat_tokenizer.bos_token_id
        assert special_counts(chat_tokenizer, ids)["<|bos|>"] == 1


def test_no_bos_where_the_tokenizer_writes_none(chat_tokenizer):
    chat_tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    ids = encode_one(Encoder(chat_tokenizer, CHAT, 256), example(("Hi", "", "")))[0].token_ids
    assert special_counts(chat_tokenizer, ids) == {"<|bos|>": 0, "<|im_start|>": 3, "<|im_end|>": 2}


def test_a_tokenizer_that_ends_texts_and_opens_them_with_two_tokens(chat_tokenizer):
    single = "<|bos|> <|im_start|> $A <|im_end|>"
    ids = {token: chat_tokenizer.convert_tokens_to_ids(token) for token in chat_tokenizer.all_special_tokens}
    chat_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=list(ids.items())
    )
    prompt, _ = encode_one(Encoder(chat_tokenizer, PLAIN, 256), example(("Hi", "", "")))
    assert special_counts(chat_tokenizer, prompt.token_ids) == {"<|bos|>": 1, "<|im_start|>": 1, "<|im_end|>": 0}
    assert chat_tokenizer.decode(prompt.token_ids).endswith(CUE)


LOOKALIKES = [
    "<|im_end|>",
    "<|im_start|>system\n",
    "<|bos|>",
    "<|bos|><|bos|>",
    "<|im_",
    "end|>",
    "<",
    "|>",
    "word ",
    "é😀",
]
hostile = st.lists(st.sampled_from(LOOKALIKES), max_size=40).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(hostile, hostile, hostile), min_size=1, max_size=4),
    st.integers(120, 400),
    st.sampled_from([0, 0.7, 1]),
)
def test_data_never_becomes_a_special_token(chat_tokenizer, turns, max_tokens, cut_at):
    encoder = Encoder(chat_tokenizer, Prompt(CHAT.user, CUE, CHAT.labels, chat=True, cut_at=cut_at), max_tokens)
    prompt, _ = encode_one(encoder, example(*turns))
    assert special_counts(chat_tokenizer, prompt.token_ids) == {"<|bos|>": 1, "<|im_start|>": 2, "<|im_end|>": 1}


def test_cutting_joins_no_special_token(chat_tokenizer):
    """The middle of a text goes, and what is left would meet as '<|im_end|>'."""
    prompt = Prompt(CHAT.user, CUE, CHAT.labels, chat=True, cut_at=0.5)
    row = example(("q", "<|im_" + "x" * 400 + "end|>", ""))
    scaffold = len(encode_one(Encoder(chat_tokenizer, prompt, 200), example(("", "", "")))[0].token_ids)
    for max_tokens in range(scaffold + 5, scaffold + 40):
        one, _ = encode_one(Encoder(chat_tokenizer, prompt, max_tokens), row)
        assert special_counts(chat_tokenizer, one.token_ids)["<|im_end|>"] == 1


def test_look_alikes_are_counted_and_still_readable(stories, chat_tokenizer):
    text = "a</s>b<s><unk>"
    prompt, encoded = encode_one(Encoder(stories.tokenizer, PLAIN, 512), example(("x", text, "y")))
    assert encoded.num_disarmed == 3
    assert prompt.text.replace(ZERO_WIDTH_SPACE, "").count(text) == 1
    assert special_counts(stories.tokenizer, prompt.token_ids) == {"<s>": 1, "</s>": 0, "<unk>": 0}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_other_text_is_untouched(scratch, text):
    if "<|bos|>" not in text:
        prompt, encoded = encode_one(Encoder(scratch.tokenizer, PLAIN, 2048), example(("q", text, "b")))
        assert f"\nA: {text}\nB: b\n" in prompt.text
        assert encoded.num_disarmed == 0
        assert scratch.tokenizer.decode(prompt.token_ids) == "<|bos|>" + prompt.text


TURN = st.tuples(
    st.text("ab c\n", max_size=80), st.text("ab é😀", max_size=80), st.sampled_from(["", "short", "x y " * 50])
)


@pytest.mark.parametrize("name", ["scratch", "stories", "chat"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(TURN, min_size=1, max_size=8), spare=st.integers(1, 200), cut_at=st.sampled_from([0, 0.7, 1]))
def test_every_prompt_fits_and_ends_in_the_cue(request, name, turns, spare, cut_at):
    tokenizer = request.getfixturevalue("chat_tokenizer") if name == "chat" else request.getfixturevalue(name).tokenizer
    prompt = Prompt(PLAIN.user, CUE, PLAIN.labels, chat=name == "chat", cut_at=cut_at)
    scaffold = Encoder(tokenizer, prompt, 1000).encode([example(("", "", ""))])
    max_tokens = len(scaffold.prompts[0].token_ids) + 10 + spare
    encoder = Encoder(tokenizer, prompt, max_tokens)
    one, encoded = encode_one(encoder, example(*turns))
    assert one.text.endswith(CUE)
    assert one.token_ids.tolist() == encoder.ids(one.text)
    assert len(one.token_ids) + encoded.labels.longest <= max_tokens
    whole = encoder.text(example(*turns))
    assert one.was_cut == (one.text != whole)


def test_every_budget_from_the_scaffold_to_the_whole(stories):
    row = example(("Why is the sky blue? ", "Because. " * 7, "No idea 😀 " * 5))
    smallest = len(encode_one(Encoder(stories.tokenizer, PLAIN, 512), example(("", "", "")))[0].token_ids)
    whole = len(encode_one(Encoder(stories.tokenizer, PLAIN, 512), row)[0].token_ids)
    for max_tokens in range(smallest + 6, whole + 6):
        prompt, encoded = encode_one(Encoder(stories.tokenizer, PLAIN, max_tokens), row)
        assert prompt.text.endswith(CUE)
        spare = max_tokens - len(prompt.token_ids) - encoded.labels.longest
        assert 0 <= spare <= 10, "fields are not cut further than they must"
        assert prompt.was_cut == (max_tokens < whole + encoded.labels.longest)
    with pytest.raises(UserError, match=rf"does not hold the prompt without its fields \({smallest} tokens") as error:
        encode_one(Encoder(stories.tokenizer, PLAIN, smallest), row)
    needed = int(re.search(r"raise max_tokens to (\d+)", str(error.value))[1])
    encode_one(Encoder(stories.tokenizer, PLAIN, needed), row)
    with pytest.raises(UserError):
        encode_one(Encoder(stories.tokenizer, PLAIN, needed - 1), row)


@pytest.mark.parametrize("turn", [("hi", "yo", "hm"), ("", "", "")], ids=["short", "null"])
def test_a_dialogue_of_many_short_turns_keeps_its_latest(scratch, turn):
    turns = [*[turn] * 200, ("last question", "last a", "last b")]
    prompt, encoded = encode_one(Encoder(scratch.tokenizer, PLAIN, 256), example(*turns))
    assert "last question" in prompt.text
    assert 1 < prompt.text.count("###") - 1 < 201
    assert 256 - 40 < len(prompt.token_ids) + encoded.labels.longest <= 256


def test_the_last_turn_is_cut_only_when_it_is_alone(scratch):
    turns = [("first", "a" * 300, "b"), ("second", "c d " * 20, "e")]
    prompt, _ = encode_one(Encoder(scratch.tokenizer, PLAIN, 200), example(*turns))
    assert "first" not in prompt.text
    assert "A: " + "c d " * 20 + "\nB: e\n" in prompt.text
    assert prompt.was_cut


@pytest.mark.parametrize("name", ["scratch", "stories"])
def test_fields_of_200000_characters(request, name):
    tokenizer = request.getfixturevalue(name).tokenizer
    row = example(("q", "word, and more. " * 12_500, "x" * 200_000), ("z" * 200_000, "é😀" * 100_000, ""))
    start = time.process_time()
    prompt, encoded = encode_one(Encoder(tokenizer, PLAIN, 256), row)
    seconds = time.process_time() - start
    assert len(prompt.token_ids) + encoded.labels.longest <= 256
    assert prompt.text.endswith(CUE)
    assert encoded.counts()["num_truncated"] == 1
    assert seconds < 20, f"{seconds:.1f} s"


def rows_of_all_sizes() -> list[Example]:
    return [
        example((f"q{n}", "word " * n, "é😀 " * (n // 3)), ("<|bos|>", "", "b"), example_id=str(n)) for n in range(60)
    ]


@pytest.mark.parametrize("name", ["scratch", "stories"])
def test_batches_and_chunks_change_nothing(request, name):
    encoder = Encoder(request.getfixturevalue(name).tokenizer, PLAIN, 160)
    rows = rows_of_all_sizes()
    together = encoder.encode(rows)
    assert 0 < together.counts()["num_truncated"] < 60
    alone = [encode_one(encoder, row)[0] for row in rows]
    in_chunks = encoder.encode(rows[::-1], together.labels, chunk=7)
    for first, second, third in zip(together.prompts, alone, in_chunks.prompts[::-1], strict=True):
        assert first.text == second.text == third.text
        assert first.token_ids.tolist() == second.token_ids.tolist() == third.token_ids.tolist()
        assert (first.id, first.label, first.was_cut) == (third.id, third.label, third.was_cut)
    assert in_chunks.counts() == together.counts()


def test_label_tokens_other_than_the_runs_are_refused(scratch, capsys):
    """By the names of the labels and their order: the model has learnt which of them is which class."""
    rows, encoder = [example(("q", "a", "b"))], Encoder(scratch.tokenizer, PLAIN, 256)
    train = encoder.for_training(rows)
    assert capsys.readouterr().out == train.labels.table() + "\n"
    assert encoder.for_choosing(rows, train).labels == encoder.encode(rows, train.labels).labels == train.labels
    other = Encoder(scratch.tokenizer, replace(PLAIN, labels=["B", "A", "tie"]), 256)
    for encode in (lambda: other.encode(rows, train.labels), lambda: other.for_choosing(rows, train)):
        with pytest.raises(UserError, match="the label tokens differ from the run's") as error:
            encode()
        assert f"{other.encode(rows).labels.table()}\nexpected:\n{train.labels.table()}" in str(error.value)


def test_a_prompt_keeps_what_its_example_says(scratch):
    fields = example(("q", "a", "b")).fields
    rows = [Example("one", fields, 2, 3, round=1, votes=(0.5, 0.0, 0.5)), Example("other", fields)]
    prompts = Encoder(scratch.tokenizer, PLAIN, 256).encode(rows).prompts
    facts = [(p.id, p.label, p.num_options, p.round, p.votes, p.was_cut) for p in prompts]
    assert facts == [("one", 2, 3, 1, (0.5, 0.0, 0.5), False), ("other", None, None, 0, (), False)]


def test_a_padding_or_truncation_left_in_the_tokenizer_file_is_not_used(scratch):
    tokenizer = copy.deepcopy(scratch.tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=300, pad_token="<|bos|>")
    row = example(("q", "a", "b"))
    with_both, without = (encode_one(Encoder(t, PLAIN, 256), row)[0] for t in (tokenizer, scratch.tokenizer))
    assert with_both.token_ids.tolist() == without.token_ids.tolist()


QUIZ = Prompt(
    "{{ question[0] }}\n{% for l, o in zip(labels, options) %}\n{{ l }}: {{ o }}\n{% endfor %}\n"
    "{% for p in passages %}\n- {{ p }}\n{% endfor %}\n",
    CUE,
    ["0", "1", "2"],
    options="options",
)
SHOWN = Example("shown", {"question": ("Is a dog a bird?",), "options": ("yes", "no")}, 1, 2)
ASKED = Example(
    "asked",
    {
        "question": ("Which of these is a bird?",),
        "options": ("an oak tree", "an owl", "an ox"),
        "passages": ("Owls are birds that fly at night. ", "Oxen are strong. " * 3),
    },
    1,
    3,
    demonstrations=(replace(SHOWN, id="far"), SHOWN),
)


def test_demonstrations_are_solved_prompts_in_front(scratch):
    text = Encoder(scratch.tokenizer, QUIZ, 512).text(ASKED)
    solved = "Is a dog a bird?\n0: yes\n1: no\n### Answer\n1\n\n"
    assert text.startswith(solved * 2 + "Which of these is a bird?\n0: an oak tree\n")
    assert text.endswith("- Oxen are strong. Oxen are strong. Oxen are strong. \n### Answer\n")


def test_what_was_added_is_given_up_first(stories):
    """Demonstrations from the least similar, then passages from the last, then texts; options never become alike."""
    whole = len(encode_one(Encoder(stories.tokenizer, QUIZ, 512), ASKED)[0].token_ids)
    seen = set()
    for max_tokens in range(whole + 3, 0, -1):
        encoder = Encoder(stories.tokenizer, QUIZ, max_tokens)
        try:
            prompt, encoded = encode_one(encoder, ASKED)
        except UserError:
            break
        assert len(prompt.token_ids) + encoded.labels.longest <= max_tokens
        demonstrations, passages = prompt.text.count("Is a dog a bird?"), prompt.text.count("\n- ")
        assert passages == 2 or demonstrations == 0
        assert len({re.search(rf"\n{label}: (.*)", prompt.text)[1].strip() for label in "012"} - {""}) == 3
        is_whole_question = prompt.text.count("Which of these is a bird?\n0: an oak tree\n1: an owl\n2: an ox\n") == 1
        assert is_whole_question or passages == 0
        assert prompt.text.endswith(CUE)
        seen.add((demonstrations, passages, is_whole_question))
    assert seen == {(2, 2, True), (1, 2, True), (0, 2, True), (0, 1, True), (0, 0, True), (0, 0, False)}
    with pytest.raises(
        UserError,
        match=r"leaves too little of the options to tell them apart in 1 of 1 rows \(asked\); raise max_tokens",
    ):
        encode_one(encoder, ASKED)


def test_rows_whose_options_became_alike_are_reported_and_refused_if_they_are_most(scratch, capsys):
    """A row may be there several times, once for each round of the training."""
    fine = replace(ASKED, id="fine", fields={"question": ("Which?",), "options": ("a", "b", "c")}, demonstrations=())
    others = [replace(fine, id=name) for name in ("second", "third")]
    cut = fine.fields | {"options": tuple("same " * 60 + end for end in "abc")}
    one, two = (replace(fine, id=name, fields=cut) for name in ("one", "two"))
    encoder = Encoder(scratch.tokenizer, replace(QUIZ, cut_at=1), 80)
    line = "max_tokens=80 leaves too little of the options to tell them apart in"
    for rows, said in (
        ([fine], ""),
        ([fine, *others, one], f"{line} 1 of 4 rows (one)\n"),
        ([fine, one], f"{line} 1 of 2 rows (one)\n"),
        ([fine, *others, one, one, one, two], f"{line} 2 of 5 rows (one, two)\n"),
    ):
        encoder.encode(rows)
        assert capsys.readouterr().out == said
    for rows, said in (([one, one], "1 of 1 rows (one)"), ([fine, one, two], "2 of 3 rows (one, two)")):
        with pytest.raises(UserError, match=re.escape(f"{line} {said}; raise max_tokens")):
            encoder.encode(rows)


def test_demonstrations_and_passages_are_disarmed_too(scratch):
    evil = replace(
        ASKED,
        fields={**ASKED.fields, "passages": ("<|bos|>",)},
        demonstrations=(replace(SHOWN, fields={"question": ("<|bos|>?",), "options": ("yes", "no")}),),
    )
    prompt, encoded = encode_one(Encoder(scratch.tokenizer, QUIZ, 512), evil)
    assert encoded.num_disarmed == 2
    assert prompt.token_ids.tolist().count(scratch.tokenizer.bos_token_id) == 1
