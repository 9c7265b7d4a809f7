"""The dialogue sample: the tracked files are what the generator writes, and marks say how much is broken."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import UserError
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.transforms.dialogue import Windows
from samples.dialogue import BROKEN, NUM_BROKEN, NUM_ROUNDS, QUALITIES, main, write_sample_dialogue
from support.tracked_samples import assert_same_files

TRACKED = Path(__file__).parents[2] / "input" / "sample-dialogue"
FILES = ("train.jsonl", "test.jsonl", "truth.jsonl")


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (TRACKED / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def truth() -> dict[str, dict]:
    return {row["dialogue_id"]: row for row in rows_of("truth.jsonl")}


def test_tracked_files_are_a_fresh_generation_byte_for_byte(tmp_path: Path) -> None:
    main([f"output_dir={tmp_path}"])
    assert_same_files(tmp_path, TRACKED, FILES)


def test_another_seed_gives_other_dialogues(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_sample_dialogue(tmp_path / str(seed), seed, num_train=12)
    assert (tmp_path / "1" / "train.jsonl").read_bytes() != (tmp_path / "2" / "train.jsonl").read_bytes()


def test_the_assistant_opens_twelve_rounds_and_the_task_drops_its_opening() -> None:
    for row in rows_of("train.jsonl"):
        assert [turn["speaker"] for turn in row["turns"]] == ["assistant", "user"] * NUM_ROUNDS
    train = Dialogue("dialogue", TRACKED).read("train")
    assert len(train) == 120
    assert len(Windows(2)(train)) == 120 * 11


def test_test_dialogues_end_with_the_user_and_have_one_known_answer(truth: dict[str, dict]) -> None:
    test = Dialogue("dialogue", TRACKED).read("test")
    assert len(test) == 20
    assert all(example.answer is None for example in test)
    for example in test:
        answer = truth[example.id]["output"]
        assert not any(phrase in answer for phrase in BROKEN)
        said = [quality for quality in QUALITIES if quality in example.fields["dialogue"][-1]]
        assert all(quality in answer for quality in said), "an answer takes up the user's last words"


def test_marks_say_how_many_answers_are_broken(truth: dict[str, dict]) -> None:
    rows = rows_of("train.jsonl")
    assert {row["mark"] for row in rows if "mark" in row} == {0, 1, 2, 3, 4}
    assert sum("mark" in row for row in rows) == 80
    for row in rows:
        known = truth[row["dialogue_id"]]
        assert row.get("mark", known["mark"]) == known["mark"]
        assert len(known["broken"]) == NUM_BROKEN[known["mark"]]
        for place, turn in enumerate(row["turns"]):
            looks_broken = any(turn["utterance"] == phrase.format(q=q) for phrase in BROKEN for q in QUALITIES)
            assert looks_broken == (place in known["broken"])


def test_no_two_dialogues_share_a_group() -> None:
    texts = ["\n".join(turn["utterance"] for turn in row["turns"]) for row in rows_of("train.jsonl")]
    assert len(set(group_ids(texts))) == len(texts)


def test_nobody_says_the_same_thing_twice_in_a_row() -> None:
    for row in rows_of("train.jsonl"):
        said = [next(q for q in QUALITIES if q in turn["utterance"]) for turn in row["turns"][1::2]]
        assert all(first != second for first, second in pairwise(said))


@pytest.mark.parametrize("argument", ["rows=11", "rows=many", "seed=-1", "row=20"])
def test_wrong_arguments_are_one_line_and_write_nothing(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=argument.split("=")[0]) as error:
        main([f"output_dir={tmp_path / 'new'}", argument])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
