"""The sample submission of a competition: its header and its ids, read a row at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nexttoken.data.csv_tables import PUT, table_rows
from nexttoken.data.row_faults import Faults, RowFault
from nexttoken.errors import MissingFile, UserError
from nexttoken.tasks.table_rows import find_table


@dataclass(frozen=True)
class SampleFile:
    """The file at `path`; None where a competition ships none."""

    path: Path | None

    @classmethod
    def find(cls, folder: Path, name: str | None) -> "SampleFile":
        """The file `name`, or the one called sample_submission. Raises MissingFile where the named one is not there."""
        try:
            return cls(find_table(folder, name, "sample_submission", "sample_file"))
        except MissingFile:
            if name:
                raise
            return cls(None)

    @cached_property
    def header(self) -> list[str]:
        """The names of the columns, the id first; [] without a file. Raises UserError for a first row that is cut."""
        if self.path is None:
            return []
        place, row = next(table_rows(self.path, []))
        if isinstance(row, RowFault):
            raise UserError(f"{self.path}: {place} ({row}); mend this row, or {PUT}")
        return list(row)

    def ids(self) -> Iterator[str]:
        """Yield the ids; nothing without a file. Raises UserError, at the end, for faulty rows."""
        if self.path is None:
            return
        faults, first = Faults(), self.header[0]
        yield from faults.sound_rows(table_rows(self.path, []), lambda row, place: row[first])
        faults.refuse(f"mend these rows, or {PUT}", self.path)
