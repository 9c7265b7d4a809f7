"""CSV, TSV and Parquet files read as rows of text, with every check, and CSV files written.

Python's csv in strict mode is used, since pandas fills a short row and cuts a long first one without a word.
"""

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.data.json_lines import dump_json
from nexttoken.data.parquet_tables import is_parquet, parquet_rows
from nexttoken.data.row_faults import Faults, Place, RowFault, id_of
from nexttoken.data.tables_in_memory import is_absent
from nexttoken.data.text_files import open_text
from nexttoken.errors import UserError, first_five, one_line

if TYPE_CHECKING:
    import pandas as pd

PUT = "put the right file there, or set input_dir=... to its folder"
Columns = dict[str, list[str]]  # a table of text by column name, in the file's order
MAX_COMPARED = 1_000  # names of a header that are compared with one that is missing
TAB_NAME = re.compile(r"\.tsv(\.gz)?$", re.I)  # tabs between the cells

csv.field_size_limit(2**31 - 1)  # a field of 200,000 characters is data; Python's default stops at 131,072


def read_table(path: Path, columns: Sequence[str], how_to_get: str = PUT) -> "pd.DataFrame":
    """Read every column of `path` as `read_columns` does, into a table."""
    import pandas as pd

    return pd.DataFrame(read_columns(path, columns, how_to_get), dtype="str")


def read_columns(path: Path, columns: Sequence[str], how_to_get: str = PUT) -> Columns:
    """Read every column of `path` as text: "NA" stays "NA", "007" stays "007", an empty cell is "".

    `columns` must be among the header's; the first of them is the row's id: one line, not empty, unique.

    Raises: UserError where the file is missing, empty, not UTF-8, or not such a table.
    """
    faults = Faults()

    def claimed(row: dict[str, str], place: Place) -> dict[str, str]:
        faults.claim_id(str(id_of(row, columns[:1], place)), place)
        return row

    rows = list(faults.sound_rows(table_rows(path, columns, how_to_get), claimed))
    faults.refuse(f"mend these rows, or {how_to_get}", path)
    return {name: [row[name] for row in rows] for name in rows[0]}


def table_rows(
    path: Path, columns: Sequence[str], how_to_get: str = PUT
) -> Iterator[tuple[Place, dict[str, str] | RowFault]]:
    """Yield each row's cells by column name; a row of another length than the header is a RowFault.

    Raises: UserError where the file is missing, empty, not UTF-8, or lacks one of `columns`.
    """
    named = f" with the columns {', '.join(columns)}" if columns else ""
    expected = f"a CSV{named}; {how_to_get}"
    rows = csv_rows(path, expected)
    header = next((cells for _, cells in rows), None)
    if header is None:
        raise UserError(f"{path} is empty: expected {expected}")
    _check_header(path, header, columns, how_to_get)
    is_empty = True
    for place, cells in rows:
        is_empty = False
        place = Place(place.file, place.line, place.row - 1)
        if len(cells) == len(header):
            yield place, dict(zip(header, cells, strict=True))
        else:
            yield place, RowFault(f"{len(cells)} cells, the header has {len(header)}: quote commas and line breaks")
    if is_empty:
        raise UserError(f"{path} has no rows below its header: expected {expected}")


def csv_rows(path: Path, expected: str = "a CSV file") -> Iterator[tuple[Place, list[str]]]:
    """Yield each row's cells with its place; blank lines are no rows. The first row of a Parquet table is its header.

    Raises: UserError for a file cut within a row.
    """
    if is_parquet(path):
        yield from _parquet_cells(path)
        return
    start, number = 1, 0
    with open_text(path, expected=expected) as file:
        reader = csv.reader(file, strict=True, delimiter="\t" if TAB_NAME.search(path.name) else ",")
        try:
            for cells in reader:
                if cells:
                    number += 1
                    yield Place(path.name, start, number), cells
                start = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}, line {start}: {error}; the file is cut (download it again) or a quote is not doubled"
            ) from None


def _parquet_cells(path: Path) -> Iterator[tuple[Place, list[str]]]:
    for place, row in parquet_rows(path):
        if place.row == 1:
            yield Place(path.name, row=1), list(row)
        yield Place(path.name, row=place.row + 1), [cell_text(value) for value in row.values()]


def cell_text(value: Any) -> str:
    """Return a value as a CSV has it: nothing for an absent one, lists and objects as JSON."""
    if isinstance(value, str):  # nearly every cell, and `is_absent` is slow
        return str(value)
    if is_absent(value):
        return ""
    return str(value) if isinstance(value, int | float) else dump_json(value)


def numbers(table: Columns, columns: Sequence[str]) -> np.ndarray:
    """Return those columns of text as float64, (N, K): NaN where a cell is no number."""
    import pandas as pd

    return np.stack([pd.to_numeric(pd.Series(table[name]), errors="coerce") for name in columns], axis=1, dtype=float)


def write_csv(rows: Iterable[Sequence[str]], path: Path, encoding: str = "utf-8") -> None:
    """Quote cells where needed; everywhere if one holds a carriage return, which Python 3.11 leaves bare."""
    rows = list(rows)
    quoting: Any = csv.QUOTE_ALL if any("\r" in cell for row in rows for cell in row) else csv.QUOTE_MINIMAL
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=quoting).writerows(rows)


def _check_header(path: Path, header: list[str], columns: Sequence[str], how_to_get: str) -> None:
    if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
        raise UserError(f"{path} names columns twice: {first_five(repeated)}; rename or remove one of each")
    missing = []
    for name in (name for name in columns if name not in header):
        near = difflib.get_close_matches(name, header[:MAX_COMPARED], n=1)
        missing.append(f"{name} (nearest: {near[0]})" if near else name)
    if missing:
        what = f"{path} lacks the columns {', '.join(missing)}; its header is: {one_line(', '.join(header), 300)}"
        raise UserError(f"{what}; rename its columns, or {how_to_get}")
