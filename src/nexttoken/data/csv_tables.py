"""A competition's CSV read as pure text with every check, so that no row is guessed, shifted or lost on its way in."""

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from nexttoken.errors import UserError, first_five

if TYPE_CHECKING:
    import pandas as pd

DOWNLOAD = "python -m nexttoken kaggle download"
Columns = dict[str, list[str]]  # a table of text by column name, in the file's order
KANA = re.compile("[ぁ-んァ-ヶ]")

csv.field_size_limit(2**31 - 1)  # a field of 200,000 characters is data; Python's default stops at 131,072


def read_table(path: Path, columns: Sequence[str], how_to_get: str = f"run `{DOWNLOAD}`") -> "pd.DataFrame":
    """Read every column of `path` as `read_columns` does, into a table."""
    import pandas as pd

    return pd.DataFrame(read_columns(path, columns, how_to_get), dtype="str")


def read_columns(path: Path, columns: Sequence[str], how_to_get: str = f"run `{DOWNLOAD}`") -> Columns:
    """Read every column of `path` as text: "NA" stays "NA", "007" stays "007", an empty cell is "".

    `columns` must be among the header's; the first of them is the row's id: one line, not empty, unique.
    Python's csv in strict mode is used, since pandas fills a short row and cuts a long first one without a word.

    Raises: UserError where the file is missing, empty, not UTF-8, or not such a table.
    """
    header, rows, lines = _parse(path, f"expected a CSV with the columns {', '.join(columns)}; {how_to_get}")
    if not rows:
        raise UserError(f"{path} has no rows below its header: expected columns {', '.join(columns)}; {how_to_get}")
    _check_header(path, header, columns)
    place = header.index(columns[0])
    _check_ids(path, columns[0], [row[place] for row in rows], lines)
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def numbers(table: Columns, columns: Sequence[str]) -> np.ndarray:
    """Return those columns of text as float64, (N, K): NaN where a cell is no number."""
    import pandas as pd

    return np.stack([pd.to_numeric(pd.Series(table[name]), errors="coerce") for name in columns], axis=1, dtype=float)


def rows_in_memory(rows: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> Iterable[Mapping[Any, Any]]:
    """Return the rows of a notebook's table as dictionaries, and dictionaries as they are."""
    return rows.to_dict("records") if hasattr(rows, "to_dict") else rows


def _parse(path: Path, expected: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the rows, and the line of the file on which each row begins; blank lines are not rows."""
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row and not header:
                    header = row
                elif row:
                    _check_width(path, start, row, header)
                    rows.append(row)
                    lines.append(start)
                start = reader.line_num + 1
    except UnicodeDecodeError:
        refuse_encoding(path)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {start}: {error}; the file is cut (download it again) or a quote is not doubled"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {expected}") from None
    if not header:
        raise UserError(f"{path} is empty: {expected}")
    return header, rows, lines


def _check_width(path: Path, line: int, row: list[str], header: list[str]) -> None:
    if len(row) != len(header):
        raise UserError(
            f"{path}, line {line}: the row has {len(row)} cells and the header {len(header)}; "
            "quote cells that hold commas or line breaks, and check that the file is whole"
        )


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{path} names columns twice: {first_five(repeated)}; rename or remove one of each")
    missing = []
    for name in (name for name in columns if name not in header):
        near = difflib.get_close_matches(name, header, n=1)
        missing.append(f"{name} (nearest: {near[0]})" if near else name)
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; its header is: {', '.join(header)[:300]}")


def _check_ids(path: Path, column: str, ids: list[str], lines: list[int]) -> None:
    unusable = (not row_id.strip() or "\r" in row_id or "\n" in row_id for row_id in ids)
    if bad := [line for line, is_bad in zip(lines, unusable, strict=True) if is_bad]:
        raise UserError(f"{path}: {column} empty or with a line break on lines {first_five(bad)}; give each row an id")
    if twice := [row_id for row_id, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{path}: {column} used more than once: {first_five(twice)}; keep one row of each")


def refuse_encoding(path: Path) -> NoReturn:
    """Name the first byte that is not UTF-8, what the file probably is, and how to mend it."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is 0x{data[error.start]:02x}"
        raise UserError(f"{path} is not UTF-8 ({place}): {_mend(data, error.reason)}") from None
    raise UserError(f"{path} changed while it was read: run the command again")


def _mend(data: bytes, reason: str) -> str:
    if data.startswith(b"PK\x03\x04"):
        return "it is a zip archive; unzip it in place"
    if reason == "unexpected end of data":
        return "it ends inside a character; download it again"
    if _decodes(data, "utf-8", errors="surrogatepass"):
        return "it holds lone surrogates (halves of a character); remove them with `iconv -c -f UTF-8 -t UTF-8`"
    found = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    # Nearly any bytes decode as Japanese, so it is Japanese only where kana come out.
    found = next((encoding for encoding in ("euc-jp", "cp932") if KANA.search(_decodes(data, encoding))), found)
    return f"it looks like {found}; convert it with `iconv -f {found} -t UTF-8`, or download it again"


def _decodes(data: bytes, encoding: str, errors: str = "strict") -> str:
    """Return the text, "" where `data` is not of that encoding."""
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError:
        return ""
