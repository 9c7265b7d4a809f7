"""A submission is whole and valid, or absent."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.tasks import submission
from nexttoken.tasks.submission import read_truth, validate_submission, write_probs

COLUMNS = ("id", "a", "b", "tie")
ONE_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=12).filter(str.strip)


def valid_probs(num_rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], size=num_rows)


def test_exact_bytes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.csv"
    write_probs(["007", "=1+1", "9007199254740993"], np.array([[1, 0, 0], [0.5, 0.25, 0.25], [0, 0, 1]]), COLUMNS, path)
    assert path.read_bytes() == b"id,a,b,tie\n007,1.0,0.0,0.0\n=1+1,0.5,0.25,0.25\n9007199254740993,0.0,0.0,1.0\n"


def test_exact_lines_of_json(tmp_path: Path) -> None:
    """They hold what a table does not: numbers beside texts, and half a character."""
    path = tmp_path / "x.jsonl"
    submission.write_submission(("id", "answer"), [("07", "b\ud800 é"), ("8", 0.1)], path, ".jsonl")
    assert path.read_bytes() == '{"id": "07", "answer": "b\\ud800 é"}\n{"id": "8", "answer": 0.1}\n'.encode()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_without_rows_is_not_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(UserError) as error:
        submission.write_submission(("id", "answer"), iter(()), path, suffix)
    assert str(error.value) == f"{path}: there are no rows to write; expected one per row of the test file"
    assert not list(tmp_path.iterdir())


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(ONE_LINE, min_size=1, max_size=5, unique=True), seed=st.integers(0, 99))
def test_ids_and_full_precision_survive_the_disk(tmp_path: Path, ids: list[str], seed: int) -> None:
    import pandas as pd

    path = tmp_path / "x.csv"
    probs = valid_probs(len(ids), seed)
    write_probs(ids, probs, COLUMNS, path)
    table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False, float_precision="round_trip")
    assert table["id"].tolist() == ids
    np.testing.assert_array_equal(table[["a", "b", "tie"]], probs / probs.sum(axis=1, keepdims=True))


def test_float32_rows_are_made_to_sum_to_one_in_float64(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    probs = valid_probs(1000).astype(np.float32)
    assert np.abs(probs.astype(np.float64).sum(axis=1) - 1).max() > 1e-9
    write_probs([str(i) for i in range(1000)], probs, COLUMNS, path)
    written = np.loadtxt(path, delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(written.sum(axis=1), 1, atol=1e-15 * 3, rtol=0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([np.nan, 0.5, 0.5], "not finite for ids y"),
        ([np.inf, -np.inf, 1.0], "not finite for ids y"),
        ([1.2, -0.2, 0.0], "outside [0, 1] for ids y"),
        ([0.5, 0.5, 0.00001], "not summing to 1 for ids y"),
        ([0.0, 0.0, 0.0], "not summing to 1 for ids y"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_probabilities_write_nothing_and_keep_the_old_file(tmp_path: Path, row: list[float], expected: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("the old one")
    with pytest.raises(UserError) as error:
        write_probs(["x", "y"], np.array([[1.0, 0.0, 0.0], row]), COLUMNS, path)
    assert str(error.value).startswith(f"{path}: probabilities {expected};")
    assert [file.name for file in tmp_path.iterdir()] == ["x.csv"]
    assert path.read_text() == "the old one"


@pytest.mark.parametrize("ids", [["x", "x"], ["x"], ["x", ""], ["x", "a\nb"], ["x", "a\rb"]])
def test_bad_ids_write_nothing(tmp_path: Path, ids: list[str]) -> None:
    with pytest.raises(UserError):
        write_probs(ids, valid_probs(2), COLUMNS, tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "columns", "row", "expected"),
    [
        (".csv", ("id", "a", "a"), ("x", 0.5, 0.5), "two columns are called a"),
        (".jsonl", ("id", "a", "a"), ("x", 0.5, 0.5), "two columns are called a"),
        (".csv", ("id", "a"), ("x", float("nan")), "a of id x is nan; expected a finite number"),
        (".jsonl", ("id", "a"), ("x", float("-inf")), "a of id x is -inf; expected a finite number"),
        (".csv", ("id", "a"), ("x", "b\ud800"), "a of id x has half a character"),
        (".csv", ("id", "a"), ("x\ud800", "b"), r"id of id x\\ud800 has half a character"),
        (".csv", ("id", "a"), ("x\ny", "b"), r"out.csv:2 \(id 'x\\ny', expected one line"),
        (".csv", ("id", "a"), (" ", "b"), r"out.csv: 1 row is faulty: out.csv:2 \(id ' '"),
    ],
)
def test_what_a_file_cannot_hold_is_named_by_file_and_id(tmp_path: Path, suffix, columns, row, expected) -> None:
    with pytest.raises(UserError, match=expected) as error:
        submission.write_submission(columns, [row], tmp_path / f"out{suffix}", suffix)
    assert str(error.value).startswith(f"{tmp_path / 'out'}{suffix}: ")
    assert ".part" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_does_not_read_back_is_not_left_behind(tmp_path: Path, monkeypatch, suffix: str) -> None:
    def cut(write):
        def write_and_cut(rows, path: Path) -> None:
            write(rows, path)
            path.write_bytes(path.read_bytes()[:-4] + b"?" + path.read_bytes()[-3:])

        return write_and_cut

    for name in ("write_csv", "write_json_lines"):
        monkeypatch.setattr(submission, name, cut(getattr(submission, name)))
    with pytest.raises(UserError, match="does not read back as it was written"):
        submission.write_submission(("id", "answer"), [("x", "abcd"), ("y", "abcd")], tmp_path / "x", suffix)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,a,tie,b\n07,1,0,0\n8,0,1,0\n", "has the header id, a, tie, b; sample_submission.csv has id, a, b, tie"),
        ("id,a,b,tie,more\n07,1,0,0,0\n8,0,1,0,0\n", "has the header id, a, b, tie, more"),
        (
            "id,a,b\n07,1,0\n8,0,1\n",
            "lacks the columns tie; its header is: id, a, b; rename its columns, or write it with",
        ),
        ("id,a,b,tie\n7,1,0,0\n8,0,1,0\n", "must have the ids of test.csv, but lacks 07 and adds 7"),
        ("id,a,b,tie\n07,1,0,0\n", "lacks 8;"),
        (
            "id,a,b,tie\n8,1,0,0\n07,0,1,0\n",
            "has the ids of test.csv in another order: row 1 is 8, expected 07; sort its",
        ),
        ("id,a,b,tie\n07,1,0,0\n8,1,0,0\n7,0,1,0\n", "must have the ids of test.csv, but adds 7;"),
        ("id,a,b,tie\n07,1,0,0\n07,1,0,0\n8,0,1,0\n", "x.csv:3 (id 07 again"),
        ("id,a,b,tie\n07,1,0,0\n8,0,,1\n", "not finite for ids 8"),
        ("id,a,b,tie\n07,1,0,0\n8,0,one,0\n", "not finite for ids 8"),
        ("id,a,b,tie\n07,1,0,0\n8,0,1\n", "x.csv:3 (3 cells, the header has 4"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        validate_submission(path, ["07", "8"], COLUMNS)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nexttoken", "submission", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_checks_a_file_against_the_folder(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,prompt\n07,x\n8,y\n")
    (tmp_path / "sample_submission.csv").write_text("id,a,b,tie\n07,0,0,1\n8,0,0,1\n")
    path = tmp_path / "x.csv"
    write_probs(["07", "8"], valid_probs(2), COLUMNS, path)
    good = command(path, f"input_dir={tmp_path}")
    assert (good.returncode, good.stderr) == (0, "")
    assert "valid, 2 rows" in good.stdout
    path.write_text("id,a,b,tie\n07,1,0,0\n")
    bad = command(path, f"input_dir={tmp_path}")
    assert bad.returncode == 2
    assert "lacks 8" in bad.stderr
    assert bad.stderr.count("\n") == 1


def test_true_probabilities_are_read_by_id_and_checked(tmp_path: Path) -> None:
    assert read_truth(tmp_path, ["a", "b"]) == {}
    path = tmp_path / "truth.csv"
    path.write_text("b,id,a\n0.25,007,0.75\n1,x,0\n", encoding="utf-8")
    assert read_truth(tmp_path, ["a", "b"]) == {"007": (0.75, 0.25), "x": (0.0, 1.0)}
    path.write_text("id,a,b\n007,0.75,0.75\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"truth\.csv: probabilities not summing to 1 for ids 007"):
        read_truth(tmp_path, ["a", "b"])
    path.write_text("id,a\n007,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"truth\.csv.* b"):
        read_truth(tmp_path, ["a", "b"])
