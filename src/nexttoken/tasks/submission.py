"""The submission file: written whole or not at all, and checked by reading it back before anyone sees it."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nexttoken.data.csv_tables import numbers, read_columns
from nexttoken.data.files import whole_file
from nexttoken.errors import UserError, first_five

TOLERANCE = 1e-6  # float32 softmaxes sum to 1 within about 1e-7


def write_submission(ids: Sequence[str], probs: np.ndarray, columns: Sequence[str], path: Path) -> None:
    """Write one row per id: `probs` is (N, K), `columns` the id's name and the K classes' names.

    A row that sums to 1 within TOLERANCE is divided by its float64 sum, so that the file's rows sum to 1 as exactly as
    float64 can; a row further off is an error, not rescaled. Numbers keep full precision, ids every byte.

    Raises: UserError where ids or probabilities are not a valid submission; nothing is written then.
    """
    probs = np.asarray(probs, dtype=np.float64)
    check_probs(str(path), ids, probs, columns[1:])
    probs = probs / probs.sum(axis=1, keepdims=True)
    with whole_file(path) as part:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([row_id, *row] for row_id, row in zip(ids, probs.tolist(), strict=True))
        validate_submission(part, ids, columns)


def validate_submission(path: Path, test_ids: Sequence[str], columns: Sequence[str]) -> None:
    """Read `path` from disk and refuse (UserError) all but this header, these ids in this order, and valid rows."""
    table = read_columns(path, columns, how_to_get="write it with `python predict.py`")
    if list(table) != list(columns):
        raise UserError(f"{path} has the header {', '.join(table)}; sample_submission.csv has {', '.join(columns)}")
    ids = table[columns[0]]
    check_same_ids(str(path), ids, "test.csv", test_ids)
    if ids != list(test_ids):
        row = next(row for row, row_id in enumerate(ids) if row_id != test_ids[row])
        raise UserError(
            f"{path} has the ids of test.csv in another order: row {row + 1} is {ids[row]}, expected {test_ids[row]}; "
            "sort its rows like test.csv"
        )
    check_probs(str(path), test_ids, numbers(table, columns[1:]), columns[1:])


def check_probs(source: str, ids: Sequence[str], probs: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse (UserError) all but unique ids with (N, K) finite probabilities in [0, 1] whose rows sum to 1."""
    if probs.shape != (len(ids), len(classes)):
        raise UserError(
            f"{source}: probabilities of shape {probs.shape}, expected ({len(ids)}, {len(classes)}): one row per id"
        )
    firsts = np.unique(np.array(ids, dtype=object), return_index=True)[1]
    with np.errstate(invalid="ignore"):  # inf - inf in a row that "not finite" reports
        sums = probs.sum(axis=1)
    faults = {
        "given more than once": ~np.isin(np.arange(len(ids)), firsts),
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


def check_same_ids(source: str, ids: Sequence[str], reference: str, expected: Sequence[str]) -> None:
    """Refuse (UserError) ids that are not, in whatever order, those expected."""
    given, wanted = set(ids), set(expected)
    differences = {
        "lacks": [row_id for row_id in expected if row_id not in given],
        "adds": [row_id for row_id in ids if row_id not in wanted],
    }
    if given != wanted:
        found = " and ".join(f"{verb} {first_five(some)}" for verb, some in differences.items() if some)
        raise UserError(f"{source} must have the ids of {reference}, but {found}; use files that belong together")
