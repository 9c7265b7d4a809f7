"""Instruction files: every usual shape is read, every faulty row is named, and the answers go back under their ids."""

import gzip
import json
import logging
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexttoken.tasks.instruction_formats
from nexttoken.errors import UserError
from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.instruction_formats import recognised
from nexttoken.types import Example, TextPredictions

PLAIN = {"id": "a", "instruction": "Say hello.", "input": "to Ada", "output": "Hello, Ada."}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task(folder: Path, **settings: Any) -> Instruct:
    return Instruct("instruct", folder, **settings)


def answered(ids: Sequence[str], texts: Sequence[Any] | None = None) -> TextPredictions:
    return TextPredictions(tuple(ids), tuple(texts or [f"answer to {row_id}" for row_id in ids]))


def submitted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


SHAPES = {
    "plain": (PLAIN, ("Say hello.", "to Ada", "Hello, Ada.")),
    "elyza": (
        {"task_id": 0, "input": "Say hello.", "output": "Hello.", "eval_aspect": "polite"},
        ("Say hello.", "", "Hello."),
    ),
    "self_instruct": (
        {"id": "s", "instruction": "Say hello.", "instances": [{"input": "Ada", "output": "Hello, Ada."}]},
        ("Say hello.", "Ada", "Hello, Ada."),
    ),
    "response": ({"instruction": "Say hello.", "response": "Hello."}, ("Say hello.", "", "Hello.")),
    "question": ({"id": 3, "question": "Who?", "response": "Ada."}, ("Who?", "", "Ada.")),
    "conversation": (
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "Hi."},
                {"from": "gpt", "value": "Hello."},
                {"from": "human", "value": "Bye."},
            ]
        },
        ("Be kind.\n\nHi.", "", "Hello."),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    row, (instruction, given, output) = SHAPES[name]
    path = write(tmp_path / "train.jsonl", row)
    assert recognised(path).name == name
    for chosen in ("auto", name):
        [example] = task(tmp_path, format=chosen).read("train")
        assert (example.fields["instruction"], example.fields["input"]) == ((instruction,), (given,))
        assert example.answer == output


NEW_FORMAT = """
from nexttoken.tasks.instruction_formats.formats import Pair

FORMATS = (Pair("asked", (frozenset({"instruction", "asked"}),), "asked", "output"),)
"""


def test_a_format_is_a_file_in_the_folder_and_nothing_else_is_edited(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "asked.py").write_text(NEW_FORMAT)
    package = nexttoken.tasks.instruction_formats
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "package")])
    assert recognised(write(tmp_path / "train.jsonl", PLAIN | {"asked": "Say what?"})).name == "asked"
    [example] = task(tmp_path).read("train")
    assert (example.fields["instruction"], example.answer) == (("Say what?",), "Hello, Ada.")


def test_messages_and_alpaca_rows_without_ids(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    write(tmp_path / "train.jsonl", {"messages": turns})
    write(tmp_path / "more.json", json.dumps([{"instruction": "Go.", "output": "Gone."}] * 2))
    examples = task(tmp_path, train_files=["train.jsonl", "more.json"]).read("train")
    assert [example.id for example in examples] == ["train-1", "more-1", "more-2"]
    assert [example.answer for example in examples] == ["Hello.", "Gone.", "Gone."]


def test_packed_files_arrays_and_a_bom_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(("\ufeff" + json.dumps(PLAIN)).encode()))
    write(tmp_path / "array.json", "\ufeff", json.dumps([{**PLAIN, "id": "b"}], indent=2))
    examples = task(tmp_path, train_files=["train.jsonl", "*.json"]).read("train")
    assert [example.id for example in examples] == ["a", "b"]


def test_every_instance_is_an_example_of_its_own(tmp_path: Path) -> None:
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": "two"}]
    write(tmp_path / "train.jsonl", {"id": "n", "instruction": "In words.", "instances": instances})
    read = [(example.id, example.fields["input"][0], example.answer) for example in task(tmp_path).read("train")]
    assert read == [("n", "1", "one"), ("n-2", "2", "two")]


def test_rubrics_and_further_keys_are_kept(tmp_path: Path) -> None:
    further = {"kind": "greeting", "mark": 4, "topics": ["a", "b"], "note": None, "eval_aspect": "polite"}
    write(tmp_path / "train.jsonl", {**PLAIN, **further})
    [example] = task(tmp_path).read("train")
    assert example.fields["rubric"] == ("polite",)
    assert example.tags == {"kind": "greeting", "mark": "4", "topics": "a, b", "file": "train.jsonl"}


FAULTS = {
    '{"id": "b", "instruction": "x", "output": "cut': "not JSON: Unterminated string",
    "7": "not a JSON object",
    '{"id": "b", "output": "x"}': "lacks instruction",
    '{"id": "b", "instruction": 7, "output": "x"}': "instruction is int, expected text",
    '{"id": "b", "instruction": " ", "output": "x"}': "an empty instruction",
    '{"id": "b", "instruction": "x"}': "no answer to learn from",
    '{"id": "b", "instruction": "x", "output": "\\n"}': "an empty answer",
    '{"id": "b", "instruction": "x", "output": ["y"]}': "output is list, expected text",
    '{"id": "b", "instruction": "x", "input": 3, "output": "y"}': "input is int, expected text",
    '{"id": "a", "instruction": "x", "output": "y"}': "id a again",
    '{"id": true, "instruction": "x", "output": "y"}': "its id is True, expected text or a whole number",
    '{"id": "b\\nc", "instruction": "x", "output": "y"}': "id 'b\\nc', expected one line of text",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_row_is_named_and_left_out_only_when_asked(line: str, tmp_path: Path, caplog) -> None:
    write(tmp_path / "train.jsonl", PLAIN, "\n", line + "\n")
    with pytest.raises(UserError) as error:
        task(tmp_path).read("train")
    message = str(error.value)
    assert message.startswith(f"1 row is faulty: train.jsonl:3 ({FAULTS[line]}")
    assert message.endswith("task.skip_faulty=true")
    caplog.set_level(logging.INFO)
    assert [example.id for example in task(tmp_path, skip_faulty=True).read("train")] == ["a"]
    assert "1 row is faulty: train.jsonl:3" in caplog.text


def test_a_faulty_first_row_hides_no_format(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{\n", {}, PLAIN)
    assert [example.id for example in task(tmp_path, skip_faulty=True).read("train")] == ["a"]


def test_the_first_five_faults_are_named_and_all_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", PLAIN, *["{\n"] * 8)
    with pytest.raises(
        UserError, match=r"8 rows are faulty: train.jsonl:2 .*train.jsonl:6 .* and 3 more; mend"
    ) as error:
        task(tmp_path).read("train")
    assert "train.jsonl:7" not in str(error.value)


def test_test_rows_may_lack_the_answer_and_are_never_left_out(tmp_path: Path) -> None:
    rows = [{"id": 1, "instruction": "x"}, {"id": 2, "instruction": "y", "output": ""}, {**PLAIN, "id": 3}]
    write(tmp_path / "test.jsonl", *rows)
    assert [example.answer for example in task(tmp_path).read("test")] == [None, None, "Hello, Ada."]
    write(tmp_path / "test.jsonl", *rows, {"id": 4, "instruction": ""})
    with pytest.raises(UserError, match="every test row needs an answer: mend them"):
        task(tmp_path, skip_faulty=True).read("test")


def test_absent_files_empty_files_and_unknown_shapes_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", PLAIN)
    for names in (["test.jsonl"], ["part-*.jsonl"]):
        with pytest.raises(UserError, match=r"has no file .*: expected instruction files; put it there"):
            task(tmp_path, test_files=names).read("test")
    write(tmp_path / "test.jsonl", "\n")
    with pytest.raises(UserError, match="is empty"):
        task(tmp_path).read("test")
    write(tmp_path / "test.jsonl", {"sentence": "x"})
    with pytest.raises(UserError, match=r"in no instruction format .* its first row has sentence"):
        task(tmp_path).read("test")
    for text, reason in (
        ("id,text\n1,a\n", "Expecting value"),
        ('{"input": 1} {"input": 2}', "Extra data"),
        ("3", "not a JSON"),
    ):
        write(tmp_path / "test.jsonl", text)
        with pytest.raises(UserError, match=rf"has no JSON object a line: test.jsonl:1 \(.*{reason}.*JSON lines$"):
            task(tmp_path).read("test")
    with pytest.raises(UserError, match="no instruction format is called 'alpaka'"):
        task(tmp_path, format="alpaka")


def test_streaming_holds_no_file_in_memory(tmp_path: Path) -> None:
    row = json.dumps({"instruction": "Go on. " * 40, "output": "Gone. " * 300}) + "\n"
    write(tmp_path / "train.jsonl", row * 2_000)
    size = (tmp_path / "train.jsonl").stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in task(tmp_path).stream("train")) == 2_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 5


def test_lone_surrogates_are_replaced_and_counted(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "train.jsonl", {**PLAIN, "input": "a\ud800b", "kind": "\udfff"})
    [example] = task(tmp_path).read("train")
    assert example.fields["input"] == ("a\ufffdb",)
    assert example.tags["kind"] == "\ufffd"
    assert "2 lone surrogates" in caplog.text


def test_a_submission_gives_ids_back_as_they_are(tmp_path: Path) -> None:
    ids = [7, "007", "x y", 0]
    write(tmp_path / "test.jsonl", *({"task_id": row_id, "input": "Go."} for row_id in ids))
    out = tmp_path / "out.jsonl"
    task(tmp_path).write(answered(["0", "x y", "7", "007"], ["a\ud800", "b\u2028b\x85", "", "日本\n語"]), out)
    assert [(row["task_id"], row["output"]) for row in submitted(out)] == [
        (7, ""),
        ("007", "日本\n語"),
        ("x y", "b\u2028b\x85"),
        (0, "a\ufffd"),
    ]
    assert len(out.read_text(encoding="utf-8").splitlines()) == 4, "a line is a row to every reader"
    assert list(submitted(out)[0]) == ["task_id", "output"]


@pytest.mark.parametrize(
    ("ids", "texts", "expected"),
    [
        (["1"], None, "lacks 2"),
        (["1", "2", "3"], None, "adds 3"),
        (["1", "2", "2"], None, "more than once: 2"),
        (["1", "2"], ["a", None], "answers of ids 2 are no text"),
        (["1", "2"], ["a"], "2 ids have 1 answers"),
    ],
)
def test_a_submission_that_would_not_count_is_not_written(ids, texts, expected: str, tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", *({"id": number, "instruction": "Go."} for number in (1, 2)))
    with pytest.raises(UserError, match=expected):
        task(tmp_path).write(answered(ids, texts), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_one_number_as_text_and_as_number_is_one_id_twice(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", {"id": 1, "instruction": "x"}, {"id": "1", "instruction": "y"})
    with pytest.raises(UserError, match="id 1 again"):
        task(tmp_path).read("test")


def test_rows_are_grouped_by_instruction_and_input(tmp_path: Path) -> None:
    instruct = task(tmp_path)
    example = Example("a", {"instruction": ("Say it.",), "input": ("it",), "rubric": ("",)}, answer="no part of it")
    assert instruct.group_text(example) == "Say it.\nit"


@pytest.mark.parametrize(
    ("file", "number", "first"),
    [("elyza-tasks-100", 100, 0), ("seed_tasks", 175, "seed_task_0"), ("user_oriented_instructions", 252, None)],
)
def test_real_files_are_tasks_and_references_at_once(file, number, first, shared_dir: Path, tmp_path: Path) -> None:
    names = [f"{file}.jsonl"]
    instruct = task(shared_dir / "data" / "instruct", train_files=names, test_files=names)
    examples = instruct.read("test")
    assert len(examples) == number
    assert [example.answer for example in examples] == [example.answer for example in instruct.read("train")]
    assert all(example.answer and example.fields["instruction"][0] for example in examples)
    assert all(example.fields["rubric"][0] for example in examples) == (file == "elyza-tasks-100")
    order = np.random.default_rng(0).permutation(number)
    instruct.write(answered([examples[index].id for index in order]), tmp_path / "out.jsonl")
    rows = submitted(tmp_path / "out.jsonl")
    assert [str(row["task_id"]) for row in rows] == [example.id for example in examples]
    if first is not None:
        assert rows[0]["task_id"] == first
        assert type(rows[0]["task_id"]) is type(first)


@pytest.mark.parametrize("rest", ['[{"id": "b", "instruction": "Say bye.", "output": "Bye."}]', "and more", "]"])
def test_text_behind_an_array_is_refused_and_not_left_out(rest: str, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "[" + json.dumps(PLAIN) + "]\n\n" + rest)
    with pytest.raises(UserError, match=r"train\.jsonl, line 3: text behind the end of the array"):
        task(tmp_path).read("train")


def test_rows_without_ids_keep_apart_in_files_whose_names_begin_alike(tmp_path: Path) -> None:
    row = {"instruction": "Say hello.", "output": "Hello."}
    for name in ("alpaca.v1.jsonl", "alpaca.v2.jsonl"):
        write(tmp_path / name, row)
    assert [e.id for e in task(tmp_path, train_files=["*.jsonl"]).read("train")] == ["alpaca.v1-1", "alpaca.v2-1"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["/data/mine/train.jsonl"], "write input_dir=/data/mine"),
        ([""], "is no name or pattern of instruction files"),
        (["a**"], "is no name or pattern of instruction files"),
        (None, "expected a list of names or patterns"),
        (3, "expected a list of names or patterns"),
    ],
)
def test_file_names_that_cannot_be_are_one_line(names: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        task(tmp_path, train_files=names).read("train")


def test_a_conversation_loses_its_further_rounds_and_says_so(tmp_path: Path, caplog) -> None:
    turns = [{"from": name, "value": name} for name in ("human", "gpt", "human", "gpt")]
    write(tmp_path / "train.jsonl", {"conversations": turns}, {"conversations": turns[:2]})
    caplog.set_level(logging.INFO)
    task(tmp_path).read("train")
    assert "only the first round is used; task=dialogue learns from all of them: 1 row (train.jsonl:1)" in caplog.text


def test_nothing_is_worked_on_behind_a_fault_that_will_stop_the_command(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", PLAIN, "{broken\n", {**PLAIN, "id": "b"}, {**PLAIN, "id": "a"})
    rows = task(tmp_path).stream("train")
    assert next(rows).id == "a"
    with pytest.raises(
        UserError, match=r"2 rows are faulty: .*:2 .*, train\.jsonl:4 \(id a again, first in train\.jsonl:1\)"
    ):
        next(rows)
    assert [row.id for row in task(tmp_path, skip_faulty=True).stream("train")] == ["a", "b"]


def test_an_answer_of_weight_0_is_not_learnt(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Wrong.", "weight": 0}]
    write(tmp_path / "train.jsonl", {"messages": turns})
    with pytest.raises(UserError, match=r"train.jsonl:1 \(no answer to learn from\)"):
        task(tmp_path).read("train")


def test_an_empty_list_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "[]")
    with pytest.raises(UserError, match=r"train.jsonl has no JSON object a line: it is an empty list; convert it"):
        task(tmp_path).read("train")
