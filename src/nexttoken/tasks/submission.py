"""Submissions: one writer for all tasks, which reads the file back before anyone sees it, and the checks before it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nexttoken.data.csv_tables import numbers, read_columns, write_csv
from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.data.text_files import SURROGATE
from nexttoken.errors import UserError, first_five, visible

TOLERANCE = 1e-6  # float32 softmaxes sum to 1 within about 1e-7
WRITE = "write it with `python predict.py`"


def write_submission(
    columns: Sequence[str], rows: Iterable[Sequence[int | float | str]], path: Path, suffix: str = ".csv"
) -> None:
    """Write `rows` under `columns`, the id first, as CSV or, for ".jsonl", as JSON lines; numbers keep full precision.

    Raises: UserError where the file does not read back as these rows with an id each; nothing is left behind then.
    """
    rows = list(rows)
    if not rows:
        raise UserError(f"{path}: there are no rows to write; expected one per row of the test file")
    _refuse_unfit(columns, rows, path, holds_halves=suffix == ".jsonl")
    with whole_file(path) as part:
        if suffix == ".jsonl":
            given = [tuple(row) for row in rows]
            write_json_lines((dict(zip(columns, row, strict=True)) for row in given), part)
            written = [tuple(row.values()) for _, row in json_rows(part) if isinstance(row, dict)]
        else:
            given = [tuple(map(str, row)) for row in rows]
            write_csv([columns, *given], part)  # type: ignore[list-item]
            try:
                written = list(zip(*read_columns(part, columns, WRITE).values(), strict=True))
            except UserError as error:  # the part is gone when the line is read
                raise UserError(str(error).replace(str(part), str(path)).replace(part.name, path.name)) from None
        if written != given:
            raise UserError(f"{path} does not read back as it was written; is the disk full? Write it again")


def _refuse_unfit(
    columns: Sequence[str], rows: Sequence[Sequence[int | float | str]], path: Path, holds_halves: bool
) -> None:
    """Raise UserError for what no such file holds: two columns of one name, NaN, in a CSV half a character."""
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise UserError(f"{path}: two columns are called {first_five(repeated)}; give each its own name")
    for row_id, *values in rows:
        for name, value in zip(columns, [row_id, *values], strict=True):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{path}: {name} of id {row_id} is {value}; expected a finite number")
            if not holds_halves and isinstance(value, str) and SURROGATE.search(value):
                raise UserError(f"{path}: {name} of id {visible(str(row_id))} has half a character; remove it")


def write_probs(ids: Sequence[str], probs: np.ndarray, columns: Sequence[str], path: Path) -> None:
    """Write one row of probabilities per id: `probs` is (N, K), `columns` the id's name and the K classes' names.

    A row that sums to 1 within TOLERANCE is divided by its float64 sum, so that the file's rows sum to 1 as exactly as
    float64 can. Raises UserError for other rows; nothing is written then.
    """
    probs = np.asarray(probs, dtype=np.float64)
    check_probs(str(path), ids, probs, columns[1:])
    probs = probs / probs.sum(axis=1, keepdims=True)
    write_submission(columns, ([row_id, *row] for row_id, row in zip(ids, probs.tolist(), strict=True)), path)


def validate_submission(path: Path, test_ids: Sequence[str], columns: Sequence[str]) -> None:
    """Read a file of probabilities. Raises UserError unless it has this header, these ids in order, and valid rows."""
    table = read_columns(path, columns, WRITE)
    if list(table) != list(columns):
        raise UserError(f"{path} has the header {', '.join(table)}; sample_submission.csv has {', '.join(columns)}")
    require_order(path, table[columns[0]], "test.csv", test_ids)
    check_probs(str(path), test_ids, numbers(table, columns[1:]), columns[1:])


def read_truth(folder: Path, classes: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return the true class probabilities by id from truth.csv, which generated samples have; else nothing."""
    if not (path := folder / "truth.csv").is_file():
        return {}
    table = read_columns(path, ["id", *classes])
    probs = numbers(table, classes)
    check_probs(str(path), table["id"], probs, classes)
    return dict(zip(table["id"], map(tuple, probs.tolist()), strict=True))


def require_order(path: Path, ids: Sequence[str], test: str, test_ids: Sequence[str]) -> None:
    """Raise UserError unless a submission's `ids` are those of the file `test`, in its order."""
    order = find_ids(str(path), ids, test, test_ids)
    if row := next((row for row, place in enumerate(order, start=1) if place != row - 1), 0):
        raise UserError(
            f"{path} has the ids of {test} in another order: row {row} is {ids[row - 1]}, "
            f"expected {test_ids[row - 1]}; sort its rows like {test}"
        )


def check_probs(source: str, ids: Sequence[str], probs: np.ndarray, classes: Sequence[str]) -> None:
    """Raise UserError unless there is a row per id of (N, K) finite probabilities in [0, 1] whose rows sum to 1."""
    if probs.shape != (len(ids), len(classes)):
        raise UserError(
            f"{source}: probabilities of shape {probs.shape}, expected ({len(ids)}, {len(classes)}): one row per id"
        )
    with np.errstate(invalid="ignore"):  # inf - inf in a row that "not finite" reports
        sums = probs.sum(axis=1)
    faults = {
        "not finite": ~np.isfinite(probs).all(axis=1),
        "outside [0, 1]": ((probs < 0) | (probs > 1)).any(axis=1),
        "not summing to 1": np.abs(sums - 1) > TOLERANCE,
    }
    for fault, rows in faults.items():
        if rows.any():
            bad = first_five(ids[row] for row in np.flatnonzero(rows).tolist())
            raise UserError(
                f"{source}: probabilities {fault} for ids {bad}; expected {len(classes)} numbers in [0, 1] summing to 1"
            )


def find_ids(source: str, ids: Sequence[str], reference: str, expected: Sequence[str]) -> list[int]:
    """Return the index in `ids` of each expected id. Raises UserError unless `ids` are those, each once."""
    index = {row_id: place for place, row_id in enumerate(ids)}
    wanted = set(expected)
    differences = {
        "lacks": [row_id for row_id in expected if row_id not in index],
        "adds": [row_id for row_id in ids if row_id not in wanted],
    }
    if any(differences.values()):
        listed = " and ".join(f"{verb} {first_five(some)}" for verb, some in differences.items() if some)
        raise UserError(f"{source} must have the ids of {reference}, but {listed}; use files that belong together")
    if repeated := [row_id for row_id, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{source} must have each id once, but have more than once: {first_five(repeated)}")
    return [index[row_id] for row_id in expected]
