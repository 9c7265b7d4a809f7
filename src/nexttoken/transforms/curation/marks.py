"""Quality marks from a table, such as a judge writes it: rows under a mark are left out."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.transforms.curation.counted import Drop, Kept
from nexttoken.transforms.curation.step import Fetch, Judge, Step, Verdict
from nexttoken.types import Example


@dataclass(frozen=True)
class KeepMarked(Step):
    """Keeps rows whose mark in the table `path` (columns `id` and `mark`) is at least `at_least`.

    Rows without a mark are kept and counted, or dropped where `missing` is "drop".
    """

    path: str
    at_least: float
    missing: str = "keep"

    def __post_init__(self) -> None:
        if self.missing not in ("keep", "drop"):
            raise UserError(f"KeepMarked: missing={self.missing!r}, expected keep or drop")

    def check(self) -> None:
        read_marks(Path(self.path))

    def judge(self, surveys: Iterable[Any], fetch: Fetch) -> Judge:
        return HasMark(read_marks(Path(self.path)), self)


@dataclass(frozen=True)
class HasMark:
    """Decides by the table."""

    marks: Mapping[str, float]
    step: KeepMarked

    def __call__(self, position: int, example: Example) -> Verdict:
        mark = self.marks.get(example.id)
        if mark is None:
            return Drop("no mark") if self.step.missing == "drop" else Kept(example, "no mark")
        return example if mark >= self.step.at_least else Drop(f"a mark under {self.step.at_least:g}", f"{mark:g}")


def read_marks(path: Path) -> dict[str, float]:
    """Marks by id. Raises UserError for a file without these columns, a mark that is no number, or an id twice."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if not {"id", "mark"} <= set(table.fieldnames or ()):
                raise UserError(f"{path} has the columns {table.fieldnames}, expected id and mark among them")
            marks: dict[str, float] = {}
            for row in table:
                add_mark(marks, row, f"{path}, line {table.line_num}")
            return marks
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of marks ({error}); expected CSV with id and mark") from None


def add_mark(marks: dict[str, float], row: Mapping[str, str], place: str) -> None:
    try:
        mark = float(row["mark"])
    except (TypeError, ValueError):
        mark = math.nan
    if math.isnan(mark):
        raise UserError(f"{place}: mark {row['mark']!r} is no number; mend it or leave the row out")
    if row["id"] in marks:
        raise UserError(f"{place}: id {row['id']!r} has a mark already; leave one of the two out")
    marks[row["id"]] = mark
