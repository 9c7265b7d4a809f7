"""Rows of a competition's tables as text: CSV, TSV, Parquet or JSON lines, found by convention and made longer."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.data.csv_tables import cell_text, table_rows
from nexttoken.data.json_lines import json_rows
from nexttoken.data.parquet_tables import is_parquet, refuse_nested
from nexttoken.data.row_faults import Place, RowFault
from nexttoken.data.tables_in_memory import rows_in_memory
from nexttoken.errors import MissingFile, UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
Row = Mapping[str, str]
_PLACE = re.compile(r"\{(\w*)\}")
Rows = Iterable[tuple[Place, Any]]


def find_table(folder: Path, name: str | None, stem: str, key: str) -> Path:
    """Return the file `name` of the folder, or the one called `stem` with one of the known endings.

    A folder of Parquet files is one table, too.

    Raises: MissingFile where there is none, UserError where there are several.
    """
    if name is not None:
        path = folder / name
        if not _is_table(path):
            raise MissingFile(f"{path} is not there: task.{key} names it; put it there, or set input_dir=...")
        return path
    found = [path for ending in ENDINGS if _is_table(path := folder / f"{stem}{ending}")]
    if not found:
        what = f"{folder} has no {stem} with one of the endings {' '.join(ENDINGS)}"
        raise MissingFile(f"{what}; put it there, set input_dir=..., or name it with task.{key}=...")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} has {names}; name the one to read with task.{key}=...")
    return found[0]


def _is_table(path: Path) -> bool:
    return path.is_file() or any(path.glob("*.parquet"))


def read_rows(path: Path, columns: Sequence[str]) -> Rows:
    """Yield each row's cells as text by column name, or a RowFault.

    The files of a folder are read in the order of their names. Raises: UserError where a file lacks a column, and where
    one of `columns` holds lists or bytes.
    """
    if path.is_dir():
        for part in sorted(path.glob("*.parquet")):
            yield from read_rows(part, columns)
        return
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for place, row in json_rows(path):
            yield place, row if isinstance(row, RowFault) else _texts(row, columns)
        return
    if is_parquet(path):
        refuse_nested(path, columns)
    yield from table_rows(path, columns)


def _refuse_absent(rows: Any, columns: Sequence[str]) -> None:
    """Raise UserError for a column that a table in memory lacks, or none of some dictionaries has."""
    names = rows if hasattr(rows, "to_dict") else {name for row in rows if isinstance(row, Mapping) for name in row}
    known = [*map(str, names)]
    if known and (missing := [name for name in columns if name not in known]):
        what = f"the table lacks the columns {', '.join(missing)}; {nearest(missing[0], known)}"
        raise UserError(f"{what}; rename its columns, or add them, with empty cells where nothing is known")


def texts_in_memory(frame: "pd.DataFrame | Iterable[Mapping[str, Any]]", columns: Sequence[str]) -> Rows:
    """Yield the rows of a table in memory with their cells as text; an absent cell is "".

    Raises: UserError where the table lacks one of `columns`.
    """
    rows = frame if hasattr(frame, "to_dict") else list(frame)
    _refuse_absent(rows, columns)
    for place, row in rows_in_memory(rows, columns):
        yield place, row if isinstance(row, RowFault) else _texts(dict.fromkeys(columns) | row, columns)


def _texts(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str] | RowFault:
    """A row's cells as text. A RowFault where one of `columns` is missing, or holds a list or an object."""
    if missing := [name for name in columns if name not in row]:
        return RowFault(f"lacks {missing[0]}")
    if nested := [name for name in columns if isinstance(row[name], list | dict)]:
        return RowFault(f"{nested[0]} is {type(row[nested[0]]).__name__}, expected text or a number")
    return {str(name): cell_text(value) for name, value in row.items()}


@dataclass(frozen=True)
class Unpivot:
    """Makes a row for each of some values: of A, B, C and D, say, where each answer has its own columns.

    A new row has the value in the column `name`, and each of `columns` takes the cell of the column that its pattern
    names: {} stands for the value, {CorrectAnswer} for the row's own cell in that column. The row whose value stands in
    the column `skip_equal_to` is left out.
    """

    name: str
    values: Sequence[str]
    columns: Mapping[str, str]
    skip_equal_to: str | None = None

    @classmethod
    def of(cls, given: Any) -> "Unpivot | None":
        """The parts of `task.unpivot`; None without one. Raises UserError for other keys."""
        if given is None:
            return None
        with suppress(TypeError, AttributeError):  # other keys, or values of another kind
            made = cls(**given)
            is_listed = isinstance(made.values, list | tuple) and made.values and isinstance(made.name, str)
            if is_listed and made.columns and all(_PLACE.search(pattern) for pattern in made.columns.values()):
                return made
        expected = "{name: Answer, values: [A, B], columns: {Text: 'Answer{}Text'}}, and skip_equal_to: <column>"
        raise UserError(f"task.unpivot={given!r} is not accepted: expected {expected}")

    def sources(self, columns: Sequence[str]) -> list[str]:
        """The columns of the file that rows with `columns` are made from."""
        plain = [name for name in columns if name != self.name and name not in self.columns]
        patterns = [self.columns[name] for name in columns if name in self.columns]
        made = [column for pattern in patterns for column in self._columns(pattern)]
        skipped = [self.skip_equal_to] if self.skip_equal_to else []
        return list(dict.fromkeys([*plain, *made, *_named(patterns), *skipped]))

    def _columns(self, pattern: str) -> list[str]:
        """The columns that a pattern can name."""
        return [_PLACE.sub(str(value), pattern) for value in self.values]

    def __call__(self, rows: Rows) -> Rows:
        for place, row in rows:
            fault = row if isinstance(row, RowFault) else self._fault(row)
            if fault is not None:
                yield place, fault
                continue
            for value in map(str, self.values):
                if self.skip_equal_to is None or row.get(self.skip_equal_to) != value:
                    yield place, self._long(row, value)

    def _fault(self, row: Row) -> RowFault | None:
        """The fault of a row whose cell completes a pattern to no column; None for a sound one."""
        for name in _named(self.columns.values()):
            if name in row and row[name] not in map(str, self.values):
                return RowFault(f"{name} is {row[name][:20]!r}, expected one of {', '.join(map(str, self.values))}")
        return None

    def _long(self, row: Row, value: str) -> dict[str, str]:
        every = {column for pattern in self.columns.values() for column in self._columns(pattern)}
        whole = {name: made for name, made in self.columns.items() if row.keys() >= {*_named([made])}}
        sources = {name: _PLACE.sub(lambda found: row[found[1]] if found[1] else value, whole[name]) for name in whole}
        kept = {name: cell for name, cell in row.items() if name not in every}
        return kept | {self.name: value} | {name: row[source] for name, source in sources.items() if source in row}


def _named(patterns: Iterable[str]) -> list[str]:
    """The columns whose cells complete a pattern."""
    return [name for pattern in patterns for name in _PLACE.findall(pattern) if name]


def columns_of(*groups: str | Iterable[str] | None) -> Iterator[str]:
    """Yield the column names of some settings, each a name, a list of names or None."""
    for group in groups:
        yield from [group] if isinstance(group, str) else map(str, group or ())
