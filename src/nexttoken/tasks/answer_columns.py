"""The columns of a table's submission: a class's probability, or the best labels in order, written and checked."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nexttoken.data.csv_tables import numbers, read_columns
from nexttoken.errors import UserError, nearest
from nexttoken.tasks.submission import WRITE, check_probs, require_order, write_submission

CALL = re.compile(r"(\w+)\s*(?:\((.*)\))?\s*", re.S)
QUOTED = re.compile(r"(['\"])(.*)\1", re.S)
EXPECTED = 'expected probability("<class>"), best, or best(3): three labels in order, a space between'


class AnswerColumn(Protocol):
    """A column of a submission."""

    def cells(self, probs: np.ndarray, decided: np.ndarray) -> list[float] | list[str]:
        """One cell per row of class probabilities (N, K), or of those whose best class the metric decides for."""

    def fault(self, cell: str) -> str: ...  # why a cell is not accepted; "" for a sound one


@dataclass(frozen=True)
class Probability:
    """The probability of one class."""

    index: int

    def cells(self, probs: np.ndarray, decided: np.ndarray) -> list[float]:
        return probs[:, self.index].tolist()

    def fault(self, cell: str) -> str:
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        return "" if 0 <= number <= 1 else "expected a number from 0 to 1"


@dataclass(frozen=True)
class Best:
    """The most probable labels in order, joined by `separator`; of equals the first class stands first."""

    classes: tuple[str, ...]
    number: int = 1
    separator: str = " "

    def __post_init__(self) -> None:
        if self.number > len(self.classes):
            raise UserError(f"best({self.number}) of {len(self.classes)} classes; name at most as many as there are")
        if self.number > 1 and (bad := [name for name in self.classes if self.separator in name]):
            what = f"the class {bad[0]!r} holds the separator {self.separator!r}"
            raise UserError(f"{what} between the labels of a row; use another, such as best({self.number}, '|')")

    def cells(self, probs: np.ndarray, decided: np.ndarray) -> list[str]:
        ranked = np.argsort(-decided, axis=1, kind="stable")[:, : self.number]
        return [self.separator.join(self.classes[index] for index in row) for row in ranked.tolist()]

    def fault(self, cell: str) -> str:
        labels = cell.split(self.separator) if self.number > 1 else [cell]
        if len(labels) > self.number or len(set(labels)) < len(labels):
            return f"expected at most {self.number} different labels"
        if unknown := [label for label in labels if label not in self.classes]:
            return f"{unknown[0]!r} is no class; {nearest(unknown[0], self.classes)}"
        return ""


def answer_columns(given: Mapping[str, str], classes: Sequence[str]) -> dict[str, AnswerColumn]:
    """Return the columns that the expressions of `task.submission` describe. Raises UserError for another one."""
    return {name: _answer_column(expression, classes, name) for name, expression in given.items()}


def _answer_column(expression: str, classes: Sequence[str], column: str) -> AnswerColumn:
    found = CALL.fullmatch(str(expression).strip())
    name, inside = (found[1], found[2]) if found else ("", None)
    if name == "probability" and inside is not None:
        value = _unquoted(inside)
        if value not in classes:
            raise UserError(f"task.submission.{column}: {value!r} is no class; {nearest(value, classes)}")
        return Probability(list(classes).index(value))
    if name == "best":
        number, _, separator = (inside or "1").partition(",")
        if number.strip().isdecimal() and int(number) > 0:
            return Best(tuple(classes), int(number), _unquoted(separator) or " ")
    raise UserError(f"task.submission.{column}={expression!r} is not accepted: {EXPECTED}")


def _unquoted(text: str) -> str:
    """The text without one pair of quotes around it: those inside belong to a class."""
    found = QUOTED.fullmatch(text.strip())
    return found[2] if found else text.strip()


@dataclass(frozen=True)
class SubmissionForm:
    """The header of a submission: the column of the ids, and the columns behind it in the order of the file."""

    id_name: str
    columns: Mapping[str, AnswerColumn]
    num_classes: int

    @classmethod
    def of(
        cls,
        header: Sequence[str],
        sample: Path | None,
        given: Mapping[str, str] | None,
        classes: Sequence[str],
        id_name: str,
    ) -> "SubmissionForm":
        """The form of a `sample` file with this header, or without one of the expressions `given` alone.

        Where nothing is given, the sample's columns are the classes' probabilities, or the best label in its only one.
        Raises: UserError where both name other columns.
        """
        given = given if given or header else None
        header = header or [id_name, *(given or {"label": "best"})]
        names = header[1:]
        if given is None:
            given = {name: f'probability("{name}")' for name in names}
            if sorted(names) != sorted(classes):
                if len(names) != 1:
                    what = f"{sample} has the columns {', '.join(names)}, which are not the classes"
                    raise UserError(f"{what}; say in task.submission what each of them holds: {EXPECTED}")
                given = {names[0]: "best"}
        if sorted(given) != sorted(names):
            what = f"{sample} has the columns {', '.join(names)} behind its id, task.submission {', '.join(given)}"
            raise UserError(f"{what}; name the same columns")
        found = answer_columns(given, classes)
        return cls(header[0], {name: found[name] for name in names}, len(classes))

    def write(self, ids: Sequence[str], probs: np.ndarray, path: Path, decided: np.ndarray | None = None) -> None:
        """Write a row per id from class probabilities (N, K); the best labels are those of `decided` where given."""
        write_submission(self.header, zip(ids, *self.cells(probs, decided), strict=True), path)

    def cells(self, probs: np.ndarray, decided: np.ndarray | None = None) -> list[list[float] | list[str]]:
        """The columns behind the id."""
        probs = probs / probs.sum(axis=1, keepdims=True)
        return [column.cells(probs, probs if decided is None else decided) for column in self.columns.values()]

    @property
    def header(self) -> list[str]:
        return [self.id_name, *self.columns]

    def check(self, path: Path, test: str, test_ids: Sequence[str]) -> None:
        """Raise UserError unless the file has this header, the ids of the file `test` in order, and sound cells."""
        table = read_columns(path, self.header, WRITE)
        if list(table) != self.header:
            raise UserError(f"{path} has the header {', '.join(table)}; expected {', '.join(self.header)}")
        ids = table[self.id_name]
        require_order(path, ids, test, test_ids)
        for name, column in self.columns.items():
            for row_id, cell in zip(ids, table[name], strict=True):
                if fault := column.fault(cell):
                    raise UserError(f"{path}: {name} of id {row_id} is {cell[:40]!r}; {fault}")
        of_classes = {column.index: name for name, column in self.columns.items() if isinstance(column, Probability)}
        if len(of_classes) == self.num_classes:
            check_probs(str(path), ids, numbers(table, [*of_classes.values()]), [*of_classes.values()])
