"""Out-of-fold answers of a finished run by row: each by the fold that held the row out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.data.csv_tables import numbers, read_columns
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.types import Example

RowKey = tuple[str, str]  # a row's file and id: every file may count its rows from 0


@dataclass(frozen=True, slots=True)
class Answered:
    """One row's answer: `probs` (K,) over the task's classes, its label, and the fold that held it out."""

    probs: np.ndarray
    label: int
    fold: int


def row_key(example: Example) -> RowKey:
    return example.tags.get("file", ""), example.id


def answers_out_of_fold(run: RunFolder, classes: Sequence[str], key: str) -> dict[RowKey, Answered]:
    """The answers of all finished folds. `key` is the setting that names the run, for messages.

    Raises UserError where there is no finished fold, a fold was altered, a row was held out twice, or the classes are
    others.
    """
    answers: dict[RowKey, Answered] = {}
    for fold in run.finished_folds():
        fold.refuse_altered()
        own = _of_fold(fold, classes, key)
        if twice := own.keys() & answers.keys():
            raise UserError(f"{key}={run.path} has held out row {min(twice)[1]!r} in two folds; train its folds again")
        answers |= own
    return answers


def _of_fold(fold: FoldFolder, classes: Sequence[str], key: str) -> dict[RowKey, Answered]:
    table = read_columns(fold.path / "oof.csv", ["id", "fold", "label"])
    if list(table)[-len(classes) :] != list(classes):
        raise UserError(f"{key}={fold.path.parent} was trained on other classes; name a run of this task")
    rows = read_columns(fold.path / "rows.csv", ["id"])
    files = dict(zip(rows["id"], rows.get("file", [""] * len(rows["id"])), strict=True))
    facts = zip(table["id"], table["label"], table["fold"], numbers(table, classes), strict=True)
    return {(files[row], row): Answered(probs, int(label), int(number)) for row, label, number, probs in facts}
