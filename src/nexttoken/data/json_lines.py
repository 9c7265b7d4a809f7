"""Rows of JSON files, read one at a time with the line on which each begins, and JSON lines written."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nexttoken.data.parquet_tables import is_parquet, parquet_rows
from nexttoken.data.row_faults import Place, RowFault
from nexttoken.data.text_files import SURROGATE, open_text, read_text
from nexttoken.errors import UserError

SPACE = re.compile(r"\s*")
LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # line ends to some readers of a JSON line, though not to JSON


def json_rows(path: Path) -> Iterator[tuple[Place, dict[str, Any] | RowFault]]:
    """Yield the objects of JSON lines, of one JSON array, or of a Parquet table; another value is a RowFault.

    JSON lines are read one at a time, whatever the size of the file; an array is read whole. Raises UserError for a
    file that is empty, not UTF-8, a broken array or table.
    """
    if is_parquet(path):
        yield from parquet_rows(path)
        return
    for number, (line, value) in enumerate(_values(path), start=1):
        is_row = isinstance(value, dict | RowFault)
        yield Place(path.name, line, number), value if is_row else RowFault("not a JSON object")


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value); the line of an array's element is 0 where another element begins on it."""
    is_empty = True
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if is_empty and line.lstrip().startswith("["):
                yield from _array_values(path, read_text(path))
                return
            is_empty = False
            try:
                yield number, json.loads(line.removesuffix("\n"))
            except (ValueError, RecursionError) as error:
                yield number, RowFault(f"not JSON: {_reason(error)}")
    if is_empty:
        raise UserError(f"{path} is empty: expected rows; download or convert it again")


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    # Python refuses to turn longer digits into a number, and says so with advice for programmers.
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of more than 4,300 digits"


def _array_values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Raises UserError at the first broken element: where the next one begins cannot be known."""
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    separator, row, previous = ",", 0, 0 if "\n" in text.strip() else 1
    while separator == ",":
        position = _skip(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            separator, position = "]", position + 1
            break
        row += 1
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            place = f"{path}, line {line}, row {row}"
            reason = error if isinstance(error, json.JSONDecodeError) else _reason(error)  # with its column
            raise UserError(f"{place}: {reason}; mend it, or download the file again") from None
        yield 0 if line == previous else line, value
        previous = line
        position = _skip(text, position)
        separator, position = text[position : position + 1], position + 1
    if separator != "]":
        raise UserError(
            f"{path}, line {line}, row {row}: expected , or ] after this element; the file is cut or not one array"
        )
    if (behind := _skip(text, position)) < len(text):
        place = f"{path}, line {text.count(chr(10), 0, behind) + 1}"
        raise UserError(f"{place}: text behind the end of the array; expected one array or one object a line")


def _skip(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    return found.end() if found else position


def dump_json(value: Any, indent: int | None = None, allow_nan: bool = True) -> str:
    """JSON with characters as they are; a lone surrogate, which no file can hold, as its escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    return SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def write_json_lines(rows: Iterable[Any], path: Path) -> None:
    """Write one row a line; characters that some readers take for a line's end are escaped."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(LINE_ENDS.sub(lambda end: f"\\u{ord(end.group()):04x}", dump_json(row)) + "\n" for row in rows)
