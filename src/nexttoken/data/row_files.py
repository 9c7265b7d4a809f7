"""A file of rows read whole, so that other rows can be written in its format: CSV, TSV, Parquet, JSON lines, JSON."""

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import TAB_NAME, table_rows, write_csv
from nexttoken.data.json_lines import dump_json, json_rows, write_json_lines
from nexttoken.data.parquet_tables import is_parquet
from nexttoken.data.row_faults import RowFault
from nexttoken.data.text_files import open_text
from nexttoken.data.whole_files import whole_file
from nexttoken.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class RowFile:
    """A file's rows in order: cells of text for a table, values as JSON has them for the other formats."""

    path: Path
    rows: list[Row]

    @classmethod
    def read(cls, path: Path, most: int | None = None) -> "RowFile":
        """At most `most` rows. Raises UserError for a file that is missing, broken or empty, and for a faulty row."""
        rows: list[Row] = []
        for place, row in table_rows(path, []) if _is_text_table(path) else json_rows(path):
            if isinstance(row, RowFault):
                raise UserError(f"{path}: {place} ({row}); mend it")
            rows.append(row)
            if len(rows) == most:
                break
        return cls(path, rows)

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write `rows` in this file's format, whole or not at all."""
        with whole_file(path) as part:
            if is_parquet(self.path):
                _write_parquet(rows, self.path, part)
            elif _is_text_table(self.path):
                self._write_table(rows, part)
            elif self._is_array():
                part.write_text(dump_json(list(rows)), encoding="utf-8")
            else:
                write_json_lines(rows, part)
            if self.path.name.endswith(".gz"):
                part.write_bytes(gzip.compress(part.read_bytes(), mtime=0))

    def _write_table(self, rows: Sequence[Row], path: Path) -> None:
        header = list(self.rows[0])
        if not TAB_NAME.search(self.path.name):
            write_csv([header, *(list(row.values()) for row in rows)], path)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, "excel-tab", lineterminator="\n").writerows([header, *(row.values() for row in rows)])

    def _is_array(self) -> bool:
        with open_text(self.path) as file:
            return file.read(1000).lstrip().startswith("[")


def _is_text_table(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")) and not is_parquet(path)


def _write_parquet(rows: Sequence[Row], source: Path, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(source)
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # dates and decimals were read as text
        table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, path)
