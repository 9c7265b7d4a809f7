"""Submissions of any ids and values: written as given, or refused with nothing left behind."""

import csv
import math
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.rule import obey
from fuzz.target import Target
from nexttoken.data.json_lines import json_rows
from nexttoken.tasks.submission import validate_submission, write_probs, write_submission

COLUMNS = ("id", "a", "b")
TEXTS = st.text(st.characters(), max_size=8)  # halves of characters among them
VALUES = st.one_of(TEXTS, st.floats(), st.integers())
ROWS = st.lists(st.tuples(TEXTS, VALUES, VALUES), max_size=5)
WEIGHTS = st.lists(st.tuples(TEXTS, st.floats(0, 1), st.floats()), min_size=1, max_size=5)


def submissions(folder: Path) -> Target:
    """The bytes are read by hypothesis, which makes rows and probabilities of them."""

    @settings(database=None, suppress_health_check=list(HealthCheck))
    @given(rows=ROWS, weights=WEIGHTS, is_normal=st.booleans(), suffix=st.sampled_from((".csv", ".jsonl")))
    def write(rows: list[tuple], weights: list[tuple], is_normal: bool, suffix: str) -> None:
        write_rows(folder / f"x{suffix}", rows, suffix)
        ids, probs = [row[0] for row in weights], np.array([row[1:] for row in weights], dtype=float)
        with np.errstate(all="ignore"):
            write_probabilities(folder / "x.csv", ids, probs / probs.sum(axis=1, keepdims=True) if is_normal else probs)

    def one_input(data: bytes) -> bool:
        return write.hypothesis.fuzz_one_input(data) is not None  # None where the bytes make no rows

    return Target(one_input, (bytes(64), bytes(range(256)) * 4))


def write_rows(path: Path, rows: list[tuple], suffix: str) -> None:
    path.unlink(missing_ok=True)
    obey(lambda: write_submission(COLUMNS, rows, path, suffix), path.name)
    if not path.exists():
        return
    if suffix == ".jsonl":
        found = [tuple(row.values()) for _, row in json_rows(path)]
        assert found == rows
        return
    with path.open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file, strict=True)
    assert tuple(header) == COLUMNS
    assert found == [[str(cell) for cell in row] for row in rows]
    assert not any(isinstance(cell, float) and not math.isfinite(cell) for row in rows for cell in row)


def write_probabilities(path: Path, ids: list[str], probs: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    obey(lambda: write_probs(ids, probs, COLUMNS, path), path.name)
    if path.exists():
        validate_submission(path, ids, COLUMNS)
        assert np.isfinite(probs).all()
