"""Checks of a file's rows: faulty rows are named by file and line, and all are counted before any is refused."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from nexttoken.errors import UserError

UNFIT_ID = re.compile("[\r\n\ud800-\udfff]")  # a line break, or half a character
FORMAT_ENDING = re.compile(r"(\.(jsonl?|csv|gz))+$")
NUM_SHOWN = 5

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")


class RowFault(Exception):
    """A row that cannot be used, or that a format cannot hold; the text is the reason, the place is added later."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row's file, the line on which it begins, and its number among the file's rows (from 1).

    `line` is 0 where a JSON array has several rows on one line; `file` is "" for rows in memory.
    """

    file: str = ""
    line: int = 0
    row: int = 0

    @property
    def stem(self) -> str:
        """The file's name without its format, so that ids of a.v1.jsonl and a.v2.jsonl differ."""
        return FORMAT_ENDING.sub("", self.file) or "row"

    def __str__(self) -> str:
        if self.line:
            return f"{self.file}:{self.line}"
        return f"{self.file}, row {self.row}" if self.file else f"row {self.row}"


@dataclass
class Tally:
    """A count, and the first five things that were counted: small, however large the file."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, item: object, count: int = 1) -> None:
        self.count += count
        if len(self.first) < NUM_SHOWN:
            self.first.append(str(item))

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more:,} more" if more > 0 else "")


@dataclass
class Faults(Tally):
    """The faulty rows of one or more files, and the places of the ids that were read."""

    places: dict[str, Place] = field(default_factory=dict)

    def sound_rows(self, rows: Iterable[tuple[P, R | RowFault]], read: Callable[[R, P], T]) -> Iterator[T]:
        """Yield `read(row, place)` of each row; count the rows that are a RowFault, or for which `read` raises one."""
        for place, row in rows:
            try:
                if isinstance(row, RowFault):
                    raise row
                yield read(row, place)
            except RowFault as fault:
                self.add(f"{place} ({fault})")

    def claim_id(self, row_id: str, place: Place) -> None:
        """Remember the id. Raises RowFault where an earlier row has it."""
        if (first := self.places.setdefault(row_id, place)) != place:
            raise RowFault(f"id {row_id} again, first in {first}")

    @property
    def line(self) -> str:
        return f"{self.count:,} row{'s are' if self.count > 1 else ' is'} faulty: {self}"

    def refuse(self, fix: str, source: object = "") -> None:
        """Raise UserError naming the first five faulty rows, where there are any."""
        if self.count:
            raise UserError(f"{source}{': ' if source else ''}{self.line}; {fix}")


def id_of(row: Mapping[str, Any], keys: Sequence[str], place: Place) -> int | str:
    """Return the first of `keys` that is not null, `<file>-<row>` where all are; whole numbers stay numbers.

    In memory a whole float is a whole number: joins of tables make floats of them.

    Raises: RowFault for an id that no submission can hold.
    """
    value = next((row[key] for key in keys if row.get(key) is not None), None)
    if value is None:
        return f"{place.stem}-{place.row}"
    if isinstance(value, float) and value.is_integer() and not place.file:
        value = int(value)
    if not is_whole(value) and not isinstance(value, str):
        raise RowFault(f"its id is {value!r:.40}, expected text or a whole number")
    if isinstance(value, str) and (not value.strip() or UNFIT_ID.search(value)):
        raise RowFault(f"id {value[:40]!r}, expected one line of text without lone surrogates")
    return value


def is_whole(value: object) -> bool:
    """Return whether the value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Raises RowFault where the row lacks `key`, or its value is not text."""
    return _refuse_absent(key) if (text := optional_text(row, key)) is None else text


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """Return the text under `key`, None where it is absent or null. Raises RowFault for anything else."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise RowFault(f"{key} is {type(value).__name__}, expected text")
    return value


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Raises RowFault where the row lacks `key`, or its value is not a list of texts."""
    if key not in row:
        _refuse_absent(key)
    if not isinstance(row[key], list) or not all(isinstance(item, str) for item in row[key]):
        raise RowFault(f"{key} is not a list of texts")
    return tuple(row[key])


def _refuse_absent(key: str) -> NoReturn:
    raise RowFault(f"lacks {key}")
