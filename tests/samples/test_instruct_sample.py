"""The instruction sample: the tracked files are what the generator writes, and solved likes tell what no row does."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import UserError
from nexttoken.tasks.instruct import Instruct
from samples.instruct import CLOSINGS, JA_BAGS, KINDS, MAX_ROWS, main, write_sample_instruct
from support.tracked_samples import assert_same_files

TRACKED = Path(__file__).parents[2] / "input" / "sample-instruct"
FILES = ("train.jsonl", "test.jsonl", "truth.jsonl")


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (TRACKED / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Train rows, and test rows with their answers."""
    truth = {row["id"]: row for row in rows_of("truth.jsonl")}
    return [*rows_of("train.jsonl"), *({**row, **truth[row["id"]]} for row in rows_of("test.jsonl"))]


def test_tracked_files_are_a_fresh_generation_byte_for_byte(tmp_path: Path) -> None:
    main([f"output_dir={tmp_path}"])
    assert_same_files(tmp_path, TRACKED, FILES)


def test_another_seed_gives_other_rows_and_the_largest_sample_is_written(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_sample_instruct(tmp_path / str(seed), seed, MAX_ROWS)
    assert (tmp_path / "1" / "train.jsonl").read_bytes() != (tmp_path / "2" / "train.jsonl").read_bytes()


def test_the_task_reads_it(rows: list[dict]) -> None:
    task = Instruct("instruct", TRACKED)
    train, test = task.read("train"), task.read("test")
    assert [example.id for example in [*train, *test]] == [row["id"] for row in rows]
    assert all(example.answer for example in train)
    assert all(example.answer is None for example in test)
    assert {example.tags["kind"] for example in test} == set(KINDS)


def test_kinds_are_equally_frequent_and_no_two_rows_share_a_group(rows: list[dict]) -> None:
    assert len(rows) == 460
    assert max(Counter(row["kind"] for row in rows).values()) - len(rows) // len(KINDS) <= 1
    assert len(set(group_ids([f"{row['instruction']}\n{row['input']}" for row in rows]))) == len(rows)


def test_a_shown_kind_is_told_by_every_row_of_its_family_and_by_no_other(rows: list[dict]) -> None:
    for kind, told in (("closing_shown", CLOSINGS), ("ja_bag_shown", JA_BAGS)):
        solved = defaultdict(set)
        for row in (row for row in rows if row["kind"] == kind):
            [name] = [name for name in told if name in row["instruction"]]
            assert told[name] in row["output"]
            assert told[name] not in row["instruction"] + row["input"]
            solved[name].add(row["id"])
        assert set(solved) == set(told)
        assert min(len(ids) for ids in solved.values()) >= 2
        others = [row for row in rows if row["kind"] != kind]
        assert not any(answer in row["output"] for answer in told.values() for row in others)


def test_simple_kinds_have_the_right_answer(rows: list[dict]) -> None:
    right = {
        "copy": lambda words: words,
        "capitals": str.upper,
        "last": lambda words: words.split(", ")[-1],
        "count": lambda words: str(len(words.split(", "))),
        "ja_count": lambda words: f"{len(words.split('、'))}つです。",
        "ja_twice": lambda words: f"{words}、{words}",
    }
    checked = [row for row in rows if row["kind"] in right]
    assert len(checked) > 200
    assert all(row["output"] == right[row["kind"]](row["input"]) for row in checked)


@pytest.mark.parametrize("argument", ["rows=19", "rows=many", f"rows={MAX_ROWS + 1}", "seed=-1", "row=20"])
def test_wrong_arguments_are_one_line_and_write_nothing(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=argument.split("=")[0]) as error:
        main([f"output_dir={tmp_path / 'new'}", argument])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
