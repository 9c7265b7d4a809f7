"""A hidden test has the visible rows first and then harder ones, for every kind of task, and is the same each time."""

import json
from pathlib import Path

import pytest

from nexttoken.build import plain
from nexttoken.commands.entry import compose
from nexttoken.data.csv_tables import read_columns
from nexttoken.data.files import hash_file
from nexttoken.data.row_files import RowFile
from nexttoken.data.targets import make
from nexttoken.errors import UserError
from nexttoken.tasks.hidden_test import write_hidden_test
from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.preference import Preference
from nexttoken.tasks.submission import require_order

TASKS = ("lmsys", "wsdm", "map", "jigsaw_rules", "eedi", "quiz", "marks", "instruct", "dialogue")


def shipped(name: str):
    return make(plain(compose("train", [f"task={name}"]))["task"], "task")


@pytest.mark.parametrize("name", TASKS)
def test_every_shipped_task_reads_its_hidden_test_whose_first_rows_are_the_visible_ones(name, tmp_path):
    task = shipped(name)
    hidden = write_hidden_test(task, tmp_path / "hidden", 700)
    visible = task.read("test")
    examples = hidden.task.read("test")
    per_row = len(visible) // hidden.num_visible
    assert (len(examples), hidden.num_rows) == (700 * per_row, 700)
    assert examples[: len(visible)] == visible
    assert len({example.id for example in examples}) == len(examples)


def test_texts_are_longer_emptier_and_in_other_scripts_and_groups_are_unseen(tmp_path):
    task = shipped("jigsaw_rules")
    write_hidden_test(task, tmp_path / "hidden", 2000)
    table = read_columns(tmp_path / "hidden" / "test.csv", ["row_id"])
    given = read_columns(Path(task.input_dir) / "test.csv", ["row_id"])
    assert max(map(len, table["body"])) > 10 * max(map(len, given["body"]))
    assert "" in table["body"]
    assert any("नमस्ते" in body for body in table["body"])
    assert {*table["subreddit"]} - {*given["subreddit"]}
    sample = read_columns(tmp_path / "hidden" / "sample_submission.csv", ["row_id"])
    require_order(tmp_path / "sample", sample["row_id"], "test.csv", table["row_id"])


def test_the_same_seed_makes_the_same_files_and_the_task_s_other_files_are_copied(tmp_path):
    task = shipped("eedi")
    folders = [
        Path(write_hidden_test(task, tmp_path / name, 90, seed).task.input_dir)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = (hash_file(folder / "test.csv") for folder in folders)
    assert one == same != other
    mapping = folders[0] / "misconception_mapping.csv"
    assert mapping.read_bytes() == (Path(task.input_dir) / mapping.name).read_bytes()
    assert mapping.stat().st_nlink == 1  # a kernel that could write there changes no file of the user's


def test_a_change_that_the_task_refuses_is_made_in_no_row_and_named(tmp_path):
    hidden = write_hidden_test(shipped("instruct"), tmp_path / "hidden", 300)
    assert [*map(str, hidden.refused)] == ["empty instruction"]


def write_instructions(folder: Path, *ids: str) -> Instruct:
    folder.mkdir()
    rows = [json.dumps({"id": row_id, "instruction": f"Name {row_id}."}) for row_id in ids]
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n")
    return Instruct("x", folder)


def test_too_few_rows_and_repeated_ids_are_one_line(tmp_path):
    task = write_instructions(tmp_path / "input", "a1", "a2", "a3")
    with pytest.raises(UserError, match=r"rows=2 is less than the visible .*test.jsonl has, 3; give more"):
        write_hidden_test(task, tmp_path / "hidden", 2)
    with pytest.raises(UserError, match="id a1 again"):
        write_hidden_test(write_instructions(tmp_path / "again", "a1", "a1"), tmp_path / "hidden", 20)
    assert not (tmp_path / "hidden").exists()


def test_ids_go_on_in_their_own_shape(tmp_path):
    write_hidden_test(write_instructions(tmp_path / "input", "q0009", "q0011"), tmp_path / "hidden", 4)
    rows = RowFile.read(tmp_path / "hidden" / "test.jsonl").rows
    assert [row["id"] for row in rows] == ["q0009", "q0011", "q0012", "q0013"]


def test_turns_stay_lists_of_texts_in_a_preference_test(tmp_path):
    write_hidden_test(Preference("input/sample-preferences"), tmp_path / "hidden", 600)
    prompts = read_columns(tmp_path / "hidden" / "test.csv", ["id", "prompt"])["prompt"]
    assert all(isinstance(json.loads(prompt), list) for prompt in prompts)
    assert any("" in json.loads(prompt) for prompt in prompts)


def test_several_test_files_keep_their_rows_in_front_and_ids_stay_different(tmp_path):
    task = write_instructions(tmp_path / "input", "a1", "a2")
    (tmp_path / "input" / "more.jsonl").write_text(json.dumps({"id": "a9", "instruction": "Name a pear."}) + "\n")
    task = Instruct("x", task.input_dir, test_files=("more.jsonl", "test.jsonl"))
    hidden = write_hidden_test(task, tmp_path / "hidden", 5)
    assert [example.id for example in hidden.task.read("test")] == ["a9", "a1", "a2", "a10", "a11"]
