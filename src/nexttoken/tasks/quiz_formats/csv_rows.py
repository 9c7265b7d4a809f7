"""The rows of CSV files with the line on which each begins, and what else quiz rows are made of."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.json_lines import RowFault, read_text
from nexttoken.errors import UserError


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of a CSV read strictly as text; blank lines are no rows. Raises UserError for a cut file."""
    reader = csv.reader(_lines(read_text(path)), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {start}: {error}; the file is cut (download it again) or a quote is not doubled"
        ) from None


def _lines(text: str) -> Iterator[str]:
    """Lines as a file opened with newline="" gives them: str.splitlines would also cut at U+2028 and the like."""
    yield from re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def index_of(row: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number, None where it is absent or null. Raises RowFault for anything else."""
    value = row.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise RowFault(f"{key} is {value!r}, expected the number of an option")
    return value


def write_csv(rows: Sequence[Sequence[str]], path: Path, encoding: str = "utf-8") -> None:
    """Quote where needed; everywhere if a cell holds a carriage return, which Python 3.11 leaves bare."""
    returns = any("\r" in cell for row in rows for cell in row)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL).writerows(rows)
