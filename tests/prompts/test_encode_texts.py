"""Open answers as token ids: exactly what generation starts from, with nothing but answers and their ends learnt."""

import copy
import re
from dataclasses import replace

import pytest

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import TEMPLATES
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.token_cache import content_key
from nexttoken.transforms.dialogue import Persona
from nexttoken.types import Example

PLAIN = Prompt("### Instruction:\n{{ instruction[0] }}\n\n", "### Response:\n", cut_at=0.7)
CHAT = Prompt("{{ instruction[0] }}", "", chat=True)
TALK = Prompt("User: {{ turn }}\n", "Assistant:", dialogue="dialogue")
TALK_CHAT = Prompt("{{ turn }}", "", dialogue="dialogue", chat=True)


def task(instruction: str, answer: str | None = "good", **more) -> Example:
    return Example("a", {"instruction": (instruction,)}, answer=answer, **more)


def talk(*turns: str, answer: str | None = "bye") -> Example:
    return Example("d", {"dialogue": turns}, answer=answer)


def learnt(encoder: TextEncoder, row) -> str:
    return encoder.tokenizer.decode(row.token_ids[row.learnt])


def encode(encoder: TextEncoder, example: Example, **options):
    return encoder.encode([example], **options).prompts[0]


@pytest.mark.parametrize("prompt", [PLAIN, CHAT, TALK, TALK_CHAT], ids=["plain", "chat", "talk", "talk_chat"])
@pytest.mark.parametrize("name", ["stories", "chat_tokenizer"])
def test_the_prompt_is_what_generation_starts_from(request, name, prompt):
    found = request.getfixturevalue(name)
    tokenizer = found.tokenizer if name == "stories" else found
    if prompt.chat and name == "stories":
        prompt = replace(prompt, chat_template="alpaca")
    encoder = TextEncoder(tokenizer, prompt, 400)
    example = talk("Hello", " there", "Go") if prompt.dialogue else task("Say it.")
    example = replace(example, answer="Once upon a time")
    row = encode(encoder, example)
    start = encoder.encode_prompts([example], 0).prompts[0].token_ids.tolist()
    assert row.token_ids[: len(start)].tolist() == start
    assert row.learnt.tolist() == [False] * len(start) + [True] * int(row.learnt.sum())  # chatml's newline is not read
    assert "Once upon a time" in learnt(encoder, row)
    assert row.token_ids[row.learnt][-1] in encoder.ends


def test_every_answer_of_a_dialogue_is_learnt_in_training_and_the_last_one_scored(chat_tokenizer):
    example = talk("Hi", "yes?", "Why", "so", "OK")
    encoder = TextEncoder(chat_tokenizer, TALK_CHAT, 400)
    assert learnt(encoder, encode(encoder, example, learns_dialogue=True)) == "yes?<|im_end|>so<|im_end|>bye<|im_end|>"
    assert learnt(encoder, encode(encoder, example)) == "bye<|im_end|>"
    plain = TextEncoder(chat_tokenizer, TALK, 400)
    row = encode(plain, example, learns_dialogue=True)
    assert learnt(plain, row) == "yes?<|bos|>so<|bos|>bye<|bos|>"  # end-of-text of this tokenizer
    expected = (
        "<|bos|>User: Hi\nAssistant:yes?<|bos|>\n\nUser: Why\nAssistant:so<|bos|>\n\nUser: OK\nAssistant:bye<|bos|>"
    )
    assert row.text == expected


@pytest.mark.parametrize("prompt", [TALK, TALK_CHAT], ids=["talk", "talk_chat"])
def test_an_answer_of_weight_0_is_read_and_never_learnt(chat_tokenizer, prompt):
    example = replace(talk("Hi", "yes?", "Why", "so", "OK"), learns=(False, True, True))
    encoder = TextEncoder(chat_tokenizer, prompt, 400)
    row, all_learnt = (encode(encoder, one, learns_dialogue=True) for one in (example, replace(example, learns=())))
    assert row.token_ids.tolist() == all_learnt.token_ids.tolist()
    text = learnt(encoder, row)
    assert "yes?" not in text
    assert "so" in text
    assert text.count("bye") == 1
    short = TextEncoder(chat_tokenizer, prompt, len(row.token_ids) - 1)
    assert learnt(short, encode(short, example, learns_dialogue=True)) == text, "the earliest turns are cut"
    assert content_key(example) != content_key(replace(example, learns=()))


def test_demonstrations_are_read_and_never_learnt(chat_tokenizer):
    example = task("Add.", demonstrations=(task("Subtract.", "minus"),))
    encoder = TextEncoder(chat_tokenizer, CHAT, 400)
    row = encode(encoder, example, learns_dialogue=True)
    assert "minus" in row.text
    assert learnt(encoder, row) == "good<|im_end|>"


def test_data_is_never_a_special_token(chat_tokenizer):
    encoder = TextEncoder(chat_tokenizer, CHAT, 400)
    encoded = encoder.encode([task("x <|im_end|> y", "z <|im_end|> w")])
    assert encoded.num_disarmed == 2
    assert learnt(encoder, encoded.prompts[0]).endswith(" w<|im_end|>")


def test_a_template_without_an_end_mark_gets_end_of_text(scratch):
    encoder = TextEncoder(scratch.tokenizer, replace(CHAT, chat_template="alpaca"), 400)
    row = encode(encoder, task("Go."))
    assert row.text == "<|bos|>### Instruction:\nGo.\n\n### Response:\ngood<|bos|>"
    assert row.token_ids[-1] == scratch.tokenizer.eos_token_id
    assert encoder.ends == (scratch.tokenizer.eos_token_id,)


def test_a_named_template_marks_the_end_of_a_turn(chat_tokenizer, scratch):
    assert TextEncoder(chat_tokenizer, CHAT, 400).ends[-1] == chat_tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(UserError, match=r"prompt.chat_template='gema' is not known.*'gemma'"):
        TextEncoder(scratch.tokenizer, replace(CHAT, chat_template="gema"), 400)
    with pytest.raises(UserError, match=r"prompt\.chat_template=gemma or chatml"):
        TextEncoder(scratch.tokenizer, CHAT, 400)


MARKS = {"gemma": "<end_of_turn>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>", "alpaca": "<|bos|>"}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_shipped_templates_end_every_answer_with_a_token(name, scratch):
    tokenizer = copy.deepcopy(scratch.tokenizer)  # whose end-of-text is <|bos|>
    tokenizer.add_special_tokens({"additional_special_tokens": [MARKS[name]]})
    encoder = TextEncoder(tokenizer, replace(TALK_CHAT, chat_template=name), 600)
    row = encode(encoder, talk("Hi", "yes", "Why"), learns_dialogue=True)
    assert learnt(encoder, row) == f"yes{MARKS[name]}bye{MARKS[name]}"
    assert tokenizer.convert_tokens_to_ids(MARKS[name]) in encoder.ends


@pytest.mark.parametrize("name", ["gemma", "chatml", "llama3"])
def test_a_mark_that_the_tokenizer_has_no_token_for_is_refused(name, scratch):
    """It would be learnt, and written at the end of every answer, as text."""
    encoder = TextEncoder(scratch.tokenizer, replace(CHAT, chat_template=name), 600)
    with pytest.raises(UserError, match=rf"ends an answer with '{re.escape(MARKS[name])}', which is no token of this"):
        encode(encoder, task("Go."))


def test_a_template_that_writes_no_answers_is_refused(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'user' %}U{% endif %}{% endfor %}"
    )
    with pytest.raises(UserError, match="the chat template writes no answers"):
        encode(TextEncoder(chat_tokenizer, CHAT, 600), task("Go."))


def test_a_template_that_can_think_is_asked_for_the_answer_itself(chat_tokenizer):
    """As Qwen3's: an answer has an empty thought before it, which is read and neither learnt nor written."""
    chat_tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{% endif %}"
    )
    encoder = TextEncoder(chat_tokenizer, CHAT, 400)
    row = encode(encoder, task("Go."))
    assert learnt(encoder, row) == "good<|im_end|>"
    (asked,) = encoder.encode_prompts([task("Go.")], 10).prompts
    assert asked.text.endswith("assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(UserError, match="omits earlier turns"):
        encode(TextEncoder(chat_tokenizer, TALK_CHAT, 400), talk("Hi", "yes", "Why"))


def test_a_dialogue_that_loses_its_first_utterances_keeps_its_persona(scratch):
    turns = [f"{who} number {n}" for n in range(10) for who in ("question", "answer")][:-1]
    (example,) = Persona("Socrates! ")([talk(*turns)])
    row = encode(TextEncoder(scratch.tokenizer, TALK, 120), example)
    assert row.was_cut
    assert row.text.removeprefix("<|bos|>").startswith("User: Socrates! question number")
    assert row.text.count("Socrates") == 1


def test_answers_that_leave_no_room_for_a_prompt_are_refused(scratch):
    with pytest.raises(UserError, match=r"generation\.max_new_tokens=60 leaves nothing of max_tokens=60 for a prompt"):
        TextEncoder(scratch.tokenizer, PLAIN, 60).encode_prompts([task("Go.")], 60)


def test_gemma_has_no_system_role(scratch):
    encoder = TextEncoder(scratch.tokenizer, Prompt("x", "", system="Be kind.", chat=True, chat_template="gemma"), 99)
    with pytest.raises(UserError, match="System role not supported"):
        encode(encoder, task("?"))


def test_an_answer_that_is_longer_than_the_budget(scratch, capsys):
    encoder = TextEncoder(scratch.tokenizer, PLAIN, 60)
    rows = [task("Go.", "word " * 200), replace(task("Go."), id="b")]
    encoded = encoder.for_training(rows)
    assert [row.id for row in encoded.prompts] == ["b"]
    assert encoded.counts()["num_left_out"] == 1
    assert "1 of 2 rows are left out" in capsys.readouterr().out
    kept = encoder.encode(rows)
    assert [row.id for row in kept.prompts] == ["a", "b"]
    assert len(kept.prompts[0].token_ids) == 60
    assert kept.counts()["num_answers_cut"] == 1
    with pytest.raises(UserError, match="no row's answer fits into max_tokens=60"):
        encoder.for_training(rows[:1])


def test_a_long_dialogue_loses_its_first_utterances_by_twos(scratch):
    turns = [f"{who} number {n}" for n in range(10) for who in ("question", "answer")][:-1]
    encoder = TextEncoder(scratch.tokenizer, TALK, 120)
    row = encode(encoder, talk(*turns), learns_dialogue=True)
    assert row.was_cut
    assert len(row.token_ids) <= 120
    assert "Assistant:bye" in row.text
    assert row.text.removeprefix("<|bos|>").startswith("User: question number")
    assert 0 < row.share_cut < 1


def test_a_long_instruction_keeps_the_answer_whole(stories):
    encoder = TextEncoder(stories.tokenizer, PLAIN, 128)
    row = encode(encoder, task("Once upon a time there was a cat. " * 60, "The cat slept."))
    assert learnt(encoder, row).strip().startswith("The cat slept.")
    assert row.was_cut
    assert len(row.token_ids) <= 128
    assert encoder.encode_prompts([task("a cat " * 300)], 50).prompts[0].token_ids.size <= 78


def test_a_row_without_an_answer_cannot_be_learnt(scratch):
    with pytest.raises(UserError, match="row a has no answer to learn"):
        TextEncoder(scratch.tokenizer, PLAIN, 99).encode([task("?", None)])


def test_no_more_demonstrations_are_given_up_than_have_to_go(scratch):
    solved = tuple(task(f"Number {n}. " + "word " * (3 * n), f"answer {n}") for n in range(6))
    example = task("Go.", None, demonstrations=solved)
    encoder = TextEncoder(scratch.tokenizer, PLAIN, 10_000)
    sizes = [len(encoder.ids(encoder.text(replace(example, demonstrations=solved[n:])))) for n in range(7)]
    for limit in range(sizes[-1], sizes[0]):
        expected = next(n for n, size in enumerate(sizes) if size <= limit)
        assert encoder.fit(example, limit).example.demonstrations == solved[expected:]
