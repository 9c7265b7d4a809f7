"""A step that drops rows by their quality marks in a table, such as the command `judge` writes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.csv_tables import numbers, read_columns
from nexttoken.errors import UserError, first_five
from nexttoken.transforms.curation.step import Drop, Fetch, Judge, Kept, Step, Verdict
from nexttoken.types import Example


@dataclass(frozen=True)
class KeepMarked(Step):
    """Keeps rows whose mark in the table `path` (columns `id` and `mark`) is at least `at_least`.

    Rows without a mark are kept and counted, or dropped with `missing="drop"`.
    """

    path: str
    at_least: float
    missing: str = "keep"

    def __post_init__(self) -> None:
        if self.missing not in ("keep", "drop"):
            raise UserError(f"KeepMarked: missing={self.missing!r}, expected keep or drop")
        if not isinstance(self.at_least, int | float) or np.isnan(self.at_least):
            raise UserError(f"KeepMarked: at_least={self.at_least!r}, expected a number")

    def check(self) -> None:
        read_marks(Path(self.path))

    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge:
        return partial(self._judge, read_marks(Path(self.path)))

    def _judge(self, marks: Mapping[str, float], position: int, example: Example) -> Verdict:
        mark = marks.get(example.id)
        if mark is None:
            return Drop("no mark") if self.missing == "drop" else Kept(example, "no mark")
        return example if mark >= self.at_least else Drop(f"a mark under {self.at_least:g}", f"{mark:g}")


def read_marks(path: Path) -> dict[str, float]:
    """Marks by id. Raises UserError for a file without these columns, a mark that is no number, or a repeated id."""
    table = read_columns(path, ("id", "mark"), "such as `python -m nexttoken judge` writes")
    marks = dict(zip(table["id"], numbers(table, ["mark"])[:, 0].tolist(), strict=True))
    if bad := [f"{row_id} ({table['mark'][place]!r})" for place, row_id in enumerate(marks) if np.isnan(marks[row_id])]:
        raise UserError(f"{path}: mark is no number for the ids {first_five(bad)}; correct or remove these rows")
    return marks
