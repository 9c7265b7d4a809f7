"""Kaggle's files become examples, and predictions become Kaggle's file."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.tasks.preference import CLASSES, Preference
from nexttoken.types import Example, LabelPredictions

TRAIN = ("id", "model_a", "model_b", "prompt", "response_a", "response_b", *CLASSES)
TEST = ("id", "prompt", "response_a", "response_b")
THIRD = (1 / 3, 1 / 3, 1 / 3)
TURNS = st.lists(st.none() | st.text(max_size=8), max_size=4)  # st.text() makes no surrogates


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def train(folder: Path, *cells: str, labels: tuple[str, ...] = ("0", "1", "0"), row_id: str = "07") -> Preference:
    write_csv(folder / "train.csv", TRAIN, [(row_id, "m", "n", *cells, *labels)])
    return Preference(folder)


def competition(folder: Path, ids: list[str], sample_ids: list[str], columns: tuple[str, ...] = CLASSES) -> Preference:
    write_csv(folder / "test.csv", TEST, [(row_id, '["q"]', '["a"]', '["b"]') for row_id in ids])
    write_csv(folder / "sample_submission.csv", ("id", *columns), [(row_id, *THIRD) for row_id in sample_ids])
    return Preference(folder)


def refusal(task: Preference, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        task.read(split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_training_row(tmp_path: Path) -> None:
    task = train(tmp_path, '["one", null]', '["a\\nb", "NA"]', '["", "null"]')
    fields = {"prompt": ("one", ""), "response_a": ("a\nb", "NA"), "response_b": ("", "null")}
    assert task.read("train") == [Example("07", fields, label=1)]


@pytest.mark.parametrize("label", [0, 1, 2])
def test_labels_index_the_submission_columns(tmp_path: Path, label: int) -> None:
    labels = tuple("1" if k == label else "0" for k in range(3))
    assert train(tmp_path, '["q"]', '["a"]', '["b"]', labels=labels).read("train")[0].label == label


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.tuples(TURNS, TURNS, TURNS), ascii_only=st.booleans())
def test_turns_come_back_unchanged_and_padded(tmp_path: Path, fields: tuple, ascii_only: bool) -> None:
    cells = [json.dumps(turns, ensure_ascii=ascii_only) for turns in fields]
    read = list(train(tmp_path, *cells).read("train")[0].fields.values())
    assert len({*map(len, read)}) == 1
    assert len(read[0]) == max(1, *map(len, fields))
    for turns, came_back in zip(fields, read, strict=True):
        padding = len(came_back) - len(turns)
        assert came_back == (*[turn or "" for turn in turns], *[""] * padding)


def test_lone_surrogates_become_replacement_characters_and_pairs_emoji(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = train(tmp_path, r'["\ud83d\ude00"]', r'["x\ud83d", "\ude00y"]', r'["\ud83d\ud83d\ude00"]')
    with caplog.at_level(logging.INFO):
        fields = task.read("train")[0].fields
    assert fields["prompt"] == ("😀", "")
    assert fields["response_a"] == ("x\ufffd", "\ufffdy")
    assert fields["response_b"] == ("\ufffd😀", "")
    assert "3 lone surrogates" in caplog.text
    "".join(turn for turns in fields.values() for turn in turns).encode()


@pytest.mark.parametrize(
    "cell",
    ["plain text", "", "null", '"text"', '{"a": 1}', "['single']", '["cut', "[1]", '[["x"]]', "[" * 100_000, "NaN"],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_cells_that_are_not_turns_are_refused_by_line(tmp_path: Path, cell: str, position: int) -> None:
    cells = ['["x"]'] * 3
    cells[position] = cell
    assert f"train.csv:2 ({TEST[1:][position]} is not a JSON list" in refusal(train(tmp_path, *cells))


@pytest.mark.parametrize(
    "labels", [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "0"), ("", "0", "1"), ("0.5", "0.5", "0")]
)
def test_labels_that_are_not_one_hot_are_refused_by_line(tmp_path: Path, labels: tuple[str, ...]) -> None:
    message = refusal(train(tmp_path, '["q"]', '["a"]', '["b"]', labels=labels))
    assert f"train.csv:2 (the winners are {', '.join(labels)}, expected 0 or 1 with exactly one 1)" in message


def test_only_the_first_five_faulty_rows_are_named(tmp_path: Path) -> None:
    rows = [(row_id, "m", "n", '["q"]', '["a"]', '["b"]', "1", "0", "1") for row_id in range(9)]
    write_csv(tmp_path / "train.csv", TRAIN, rows)
    message = refusal(Preference(tmp_path))
    assert "9 rows are faulty: train.csv:2 (the winners are 1, 0, 1" in message
    assert "and 4 more; mend these rows" in message
    assert "train.csv:6" in message
    assert "train.csv:7" not in message


def test_rows_in_memory_are_test_rows(tmp_path: Path) -> None:
    row = {"id": 7, "prompt": '["q"]', "response_a": '["a"]', "response_b": "[null]"}
    (example,) = Preference(tmp_path).parse(pd.DataFrame([row]))
    assert (example.id, example.fields["response_b"], example.label) == ("7", ("",), None)
    for faulty, reason in {
        "id": "its id is 7.5, expected text or a whole number",
        "prompt": "lacks prompt",
        "response_b": "response_b is float, expected text",
    }.items():
        frame = pd.DataFrame([row | {faulty: None if faulty == "prompt" else 7.5}])
        with pytest.raises(UserError, match=rf"row 1 \({reason}\)"):
            Preference(tmp_path).parse(frame)


def test_files_are_missing(tmp_path: Path) -> None:
    assert "python -m nexttoken kaggle download" in refusal(Preference(tmp_path))
    write_csv(tmp_path / "test.csv", TEST, [("1", '["q"]', '["a"]', '["b"]')])
    assert "sample_submission.csv cannot be read" in refusal(Preference(tmp_path), "test")


def test_three_test_rows_without_labels(tmp_path: Path) -> None:
    examples = competition(tmp_path, ["1", "01", "3"], ["1", "01", "3"]).read("test")
    assert [(example.id, example.label) for example in examples] == [("1", None), ("01", None), ("3", None)]


def test_winner_columns_of_test_rows_are_ignored(tmp_path: Path) -> None:
    competition(tmp_path, ["1"], ["1"])
    write_csv(tmp_path / "test.csv", (*TEST, *CLASSES), [("1", '["q"]', '["a"]', '["b"]', "x", "", "1")])
    assert Preference(tmp_path).read("test")[0].label is None


def test_sample_submission_of_other_ids_is_refused(tmp_path: Path) -> None:
    assert "lacks 2 and adds 02" in refusal(competition(tmp_path, ["1", "2"], ["1", "02"]), "test")


def test_sample_submission_of_other_columns_is_refused(tmp_path: Path) -> None:
    task = competition(tmp_path, ["1"], ["1"])
    write_csv(tmp_path / "sample_submission.csv", ("id", *CLASSES, "more"), [("1", *THIRD, 0)])
    assert "expected id, winner_model_a" in refusal(task, "test")


def test_submission_follows_the_rows_of_test_and_the_columns_of_the_sample(tmp_path: Path) -> None:
    task = competition(tmp_path, ["1", "01"], ["01", "1"], columns=("winner_tie", "winner_model_a", "winner_model_b"))
    predictions = LabelPredictions(("01", "1"), np.array([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625]]))
    task.write(predictions, tmp_path / "x.csv")
    expected = "id,winner_tie,winner_model_a,winner_model_b\n1,0.625,0.125,0.25\n01,0.25,0.5,0.25\n"
    assert (tmp_path / "x.csv").read_text() == expected


@pytest.mark.parametrize("ids", [("1",), ("1", "1"), ("1", "2", "3"), ("1", "02")])
def test_predictions_of_other_rows_are_not_written(tmp_path: Path, ids: tuple[str, ...]) -> None:
    task = competition(tmp_path, ["1", "2"], ["1", "2"])
    with pytest.raises(UserError):
        task.write(LabelPredictions(ids, np.tile(THIRD, (len(ids), 1))), tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_truth_is_read_where_it_is_known(tmp_path: Path) -> None:
    assert Preference(tmp_path).truth() == {}
    write_csv(tmp_path / "truth.csv", ("id", *CLASSES), [("01", 0.1, 0.2, 0.7)])
    assert Preference(tmp_path).truth() == {"01": (0.1, 0.2, 0.7)}
    write_csv(tmp_path / "truth.csv", ("id", *CLASSES), [("01", 0.1, 0.2, 0.1)])
    with pytest.raises(UserError, match="not summing to 1 for ids 01"):
        Preference(tmp_path).truth()


def test_group_text_is_the_whole_prompt(tmp_path: Path) -> None:
    task = train(tmp_path, '["one", "two"]', '["a"]', '["b"]')
    assert task.group_text(task.read("train")[0]) == "one\ntwo"


def test_real_judgements(shared_dir: Path) -> None:
    task = Preference(shared_dir / "data" / "arena-mini")
    examples = task.read("train")
    assert np.bincount([example.label for example in examples]).tolist() == [760, 773, 389]
    assert len(task.read("test")) == 469


def test_real_judgements_round_trip(shared_dir: Path, tmp_path: Path) -> None:
    task = Preference(shared_dir / "data" / "arena-mini")
    ids = tuple(example.id for example in task.read("test"))
    task.write(LabelPredictions(ids[::-1], np.tile(THIRD, (len(ids), 1))), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == task.path("sample_submission.csv").read_bytes()
