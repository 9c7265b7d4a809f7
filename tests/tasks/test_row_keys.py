"""No key of a row is dropped without a word: it is shown, it is bookkeeping, or one line names it with its rows."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.prompts import Prompt
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.marks import Marks
from nexttoken.tasks.preference import Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.tasks.row_keys import BOOKKEEPING, CONTEXT_KEYS, SYSTEM_KEYS, content_text, unseen_keys
from nexttoken.types import Example

INSTRUCT: dict[str, dict[str, Any]] = {
    "plain": {"instruction": "Say it.", "input": "to Ada", "output": "it"},
    "elyza": {"input": "Say it.", "output": "it"},
    "response": {"instruction": "Say it.", "response": "it"},
    "question": {"question": "Say it.", "response": "it"},
    "self_instruct": {"instruction": "Say it.", "instances": [{"input": "to Ada", "output": "it"}]},
    "conversation": {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "it"}]},
}
QUIZ: dict[str, dict[str, Any]] = {
    "plain": {"question": "q", "options": ["a", "b"], "answer": 0},
    "jaqket": {"qid": "1", "question": "q", "answer_candidates": ["a", "b"], "answer_entity": "a"},
    "jcommonsenseqa": {"q_id": 1, "question": "q", **{f"choice{n}": str(n) for n in range(5)}, "label": 0},
    "instruction": {"instruction": "問題: q\n0: a\n1: b\n", "output": "0: a"},
}
MARKS = {"id": "m", "instruction": "Say it.", "response": "it", "mark": 1}
CHAT = Prompt("{{ instruction[0] }}|{{ input[0] }}", "")


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def shown(example: Example) -> str:
    return "\n".join(turn for turns in example.fields.values() for turn in turns)


@pytest.mark.parametrize("key", [*SYSTEM_KEYS, *CONTEXT_KEYS])
@pytest.mark.parametrize("name", INSTRUCT)
def test_what_stands_beside_an_instruction_is_shown(name: str, key: str, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path, INSTRUCT[name] | {key: "You live in Arden."})
    (example,) = Instruct("instruct", tmp_path, format=name).read("train")
    assert "You live in Arden." in shown(example)
    assert "Say it." in shown(example)
    assert example.answer == "it"
    assert key not in example.tags, "it would be written beside the text that holds it already"
    assert "does not see" not in caplog.text


@pytest.mark.parametrize("name", INSTRUCT)
@pytest.mark.parametrize(
    "history",
    [
        [["Name the town.", "Arden."]],
        [{"role": "user", "content": "Name the town."}, {"role": "assistant", "content": [{"text": "Arden."}]}],
    ],
)
def test_earlier_turns_are_shown(name: str, history: list[Any], tmp_path: Path) -> None:
    write(tmp_path, INSTRUCT[name] | {"history": history, "system": "Be brief."})
    (example,) = Instruct("instruct", tmp_path, format=name).read("train")
    opened = "Be brief.\n\nName the town."
    assert example.fields["instruction"][0].startswith(opened)
    if name != "conversation":  # which takes the first round of a conversation
        assert example.fields["instruction"][0] == f"{opened}\nArden.\n\nSay it."


@pytest.mark.parametrize("history", ["Name the town.", [["Name the town."]], [["a", ""]], [7], {"a": 1}])
def test_a_history_that_is_none_is_named(history: Any, tmp_path: Path) -> None:
    write(tmp_path, INSTRUCT["plain"] | {"history": history})
    with pytest.raises(UserError, match=r"train.jsonl:1 \(.*history"):
        Instruct("instruct", tmp_path).read("train")


def test_texts_to_answer_from_come_behind_the_input_in_every_shape(tmp_path: Path) -> None:
    contexts = ["a", ["b", "c"], [{"title": "x", "text": "d"}]]
    write(tmp_path, INSTRUCT["plain"] | dict(zip(("context", "passages", "documents"), contexts, strict=True)))
    (example,) = Instruct("instruct", tmp_path).read("train")
    assert example.fields["input"] == ("to Ada\n\na\n\nb\n\nc\n\nx\nd",)


def test_a_dialogue_is_opened_by_its_system_message_history_and_context(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    row = {"system": "You live in Arden.", "conversations": turns, "context": "Map.", "history": [["Yo", "Hm"]]}
    write(tmp_path, row)
    (example,) = Dialogue("dialogue", tmp_path).read("train")
    assert (example.fields["dialogue"], example.answer) == (("You live in Arden.\n\nMap.\n\nYo", "Hm", "Hi"), "Hello")


READERS: dict[str, Any] = {
    **{name: (row, lambda folder, name=name: Instruct("i", folder, format=name)) for name, row in INSTRUCT.items()},
    **{f"quiz {name}": (row, lambda folder, name=name: Quiz("q", folder, name)) for name, row in QUIZ.items()},
    "dialogue": (INSTRUCT["conversation"], lambda folder: Dialogue("d", folder)),
    "marks": (MARKS, Marks),
}


@pytest.mark.parametrize("name", READERS)
def test_one_line_names_the_keys_that_no_model_sees(name: str, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    row, reader = READERS[name]
    ids = {"q_id", "qid"} & row.keys()
    rows = [row | dict.fromkeys(ids or {"id"}, number) for number in range(3)]
    if name == "quiz jaqket":
        rows = [one | {"qid": str(one["qid"])} for one in rows]
    if name == "marks":
        rows = [one | {"id": str(one["id"])} for one in rows]
    further = [{"plan": "go", "tools": [1], "category": "x", "user_id": 3}, {"plan": 0, "empty": None}, {}]
    write(tmp_path, *(one | more for one, more in zip(rows, further, strict=True)))
    reader(tmp_path).read("train")
    assert [line for line in caplog.messages if "see" in line] == [
        "the model does not see: `plan` (2 rows), `tools` (1 row)"
    ]


def test_keys_of_a_csv_are_named_too(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    pair = {"id": 1, "model_a": "m", "prompt": '["q"]', "response_a": '["a"]', "response_b": '["b"]', "hint": "h"}
    pair |= {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    exam = {"id": 1, "prompt": "q", **{letter: letter for letter in "ABCDE"}, "answer": "A", "hint": "h"}
    for task, row in ((Preference(tmp_path), pair), (Quiz("e", tmp_path, train_files=["train.csv"]), exam)):
        with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([row, row.values()])
        task.read("train")
    jmmlu = {"question": "q", "A": "x", "B": "y", "hint": "h", "file": "f"}
    Quiz("j", tmp_path, "jmmlu").parse(pd.DataFrame([jmmlu]))
    assert caplog.messages == ["the model does not see: `hint` (1 row)"] * 3


def test_keys_inside_turns_and_instances_are_named(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    turns = [{"role": "user", "content": "q", "id": 1}, {"role": "assistant", "content": "a", "tool_calls": [1]}]
    Dialogue("d", write(tmp_path, {"messages": turns})).read("train")
    instances = [{"input": "1", "output": "x", "constraints": "short"}, {"output": "y", "constraints": "long"}]
    Instruct("i", write(tmp_path, {"instruction": "q", "instances": instances})).read("train")
    assert caplog.messages == [
        "the model does not see: `messages.tool_calls` (1 row)",
        "the model does not see: `instances.constraints` (1 row)",
    ]


def test_a_questions_context_is_shown_where_passages_are_and_counted_where_not(tmp_path: Path) -> None:
    rows = [QUIZ["plain"] | {"id": n, "context": f"map {n}", "passages": ["p"]} for n in range(2)]
    examples = Quiz("q", write(tmp_path, *rows)).read("train")
    assert examples[1].fields["context"] == ("map 1", "p")
    found = Example("x", {**examples[0].fields, "passages": ("hit",)}, 0)
    with_passages = Prompt("{{ question[0] }}{% for one in passages %} [{{ one }}]{% endfor %}", "", ["0"])
    assert with_passages.render(found)[0].content == "q [map 0] [p] [hit]"
    assert with_passages.count_unshown(examples) == {"options": 2}
    assert Prompt("{{ question[0] }}{{ options[0] }}", "", ["0"]).count_unshown(examples) == {"context": 2}
    assert CHAT.count_unshown([Example("x", {"instruction": ("a",), "input": ("",), "rubric": ("r",)})]) == {}


KEY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@settings(max_examples=40)
@given(
    st.dictionaries(KEY, st.one_of(st.none(), st.just(""), st.integers(), st.text(min_size=1)), max_size=6), st.data()
)
def test_every_key_with_a_value_is_seen_bookkeeping_or_named(row: dict[str, Any], data: st.DataObject) -> None:
    seen = data.draw(st.sets(st.sampled_from(sorted(row) or ["x"])))
    left = {key for key, value in row.items() if value not in (None, "")} - seen - set(unseen_keys(row, seen))
    assert all(key.lower() in BOOKKEEPING or key.lower().rstrip()[-2:] == "id" for key in left)


@pytest.mark.parametrize("key", ["id", "user_id", "questionId", "uuid", "qid", "Unnamed: 0", "Category", "source"])
def test_bookkeeping_needs_no_line(key: str) -> None:
    assert unseen_keys({key: 1}, ()) == ()


@pytest.mark.parametrize("key", ["valid", "paid", "text", "hint", "weight", "ids of all", "persona", "id card"])
def test_other_keys_need_one(key: str) -> None:
    assert unseen_keys({key: 1}, ()) == (key,)


TEXT_PART = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("content", "text"), [("a", "a"), ([TEXT_PART], "a"), ([TEXT_PART, {"text": "b"}, "c"], "a\nb\nc"), ([], "")]
)
def test_parts_of_text_are_their_text(content: Any, text: str) -> None:
    assert content_text(content, "content") == text


PARTS = {
    "part 2 of content of turn 1 is image_url": [TEXT_PART, {"type": "image_url", "image_url": {"url": "x"}}],
    "part 1 of content of turn 1 is image": [{"type": "image", "text": "a cat"}],
    "part 1 of content of turn 1 is int": [7],
    "part 1 of content of turn 1 is text": [{"type": "text", "text": None}],
    "content of turn 1 is dict": {"type": "text", "text": "a"},
    "turn 1 is empty": [],
}


@pytest.mark.parametrize("reason", PARTS)
@pytest.mark.parametrize("task", [Instruct, Dialogue])
def test_a_part_of_another_kind_is_a_faulty_row(task: Any, reason: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": PARTS[reason]}, {"role": "assistant", "content": [TEXT_PART]}]
    with pytest.raises(UserError, match=rf"train.jsonl:1 \({reason}"):
        task("t", write(tmp_path, {"messages": turns})).read("train")
