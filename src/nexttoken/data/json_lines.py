"""Rows of JSON files, read one by one with the line on which each begins, so that a fault can be pointed at."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import refuse_encoding
from nexttoken.errors import UserError, first_five

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can spell it, no encoder writes it
UNFIT_ID = re.compile("[\r\n\ud800-\udfff]")  # a line break, or half a character
GZIP = b"\x1f\x8b"
BOM = "\ufeff"
FORMAT_ENDING = re.compile(r"(\.(jsonl?|csv|gz))+$")
SPACE = re.compile(r"\s*")


class RowFault(Exception):
    """A row that cannot be used, or that a format cannot hold; the text is the reason alone, the place is added."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stood: its file, the line on which it begins, and its number among the file's rows (from 1).

    `line` is 0 where the line tells nothing: a JSON array may hold all its rows on one.
    """

    file: str = ""
    line: int = 0
    row: int = 0

    @property
    def stem(self) -> str:
        """Its name without what says the format, so that a.v1.jsonl and a.v2.jsonl keep apart."""
        return FORMAT_ENDING.sub("", self.file)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else f"{self.file}, row {self.row}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be used as it is, and why."""

    place: Place | str
    reason: str

    def __str__(self) -> str:
        return f"{self.place} ({self.reason})"


def faults_line(faults: Sequence[Fault]) -> str:
    return f"{len(faults):,} row{'s are' if len(faults) > 1 else ' is'} faulty: {first_five(faults)}"


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text without its BOM, unpacked where it is gzipped; UserError names another encoding."""
    text = "".join(_lines(path))
    if not text.strip():
        raise UserError(f"{path} is empty: expected rows; download or convert it again")
    return text


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) for JSON lines or the elements of one JSON array; a line that is no JSON is a RowFault.

    The line of an element is 0 where another one begins on it, so that its number alone can name it. JSON lines are
    read one at a time, whatever the size of the file; an array is read whole.
    """
    is_empty = True
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        if is_empty and line.lstrip().startswith("["):
            yield from _array_rows(path, read_text(path))
            return
        is_empty = False
        try:
            yield number, json.loads(line.removesuffix("\n"))
        except (ValueError, RecursionError) as error:
            yield number, RowFault(f"not JSON: {_reason(error)}")
    if is_empty:
        raise UserError(f"{path} is empty: expected rows; download or convert it again")


def _lines(path: Path) -> Iterator[str]:
    """Yield lines with their "\\n", cut nowhere else: str.splitlines would also cut at U+2028 and the like."""
    packed = False
    try:
        packed = is_packed(path)
        with gzip.open(path) if packed else path.open("rb") as file:
            for number, line in enumerate(file):
                text = line.decode()
                yield text.removeprefix(BOM) if number == 0 else text
    except UnicodeDecodeError:
        if packed:
            raise UserError(f"{path} does not unpack to UTF-8; unpack it and convert it with iconv") from None
        refuse_encoding(path)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected a file of rows") from None


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    # Python refuses to turn longer digits into a number, and says so with advice for programmers.
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of more than 4,300 digits"


def _array_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
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


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Raises RowFault where the row lacks `key`, or holds something else than text there."""
    if key not in row:
        raise RowFault(f"lacks {key}")
    if not isinstance(row[key], str):
        raise RowFault(f"{key} is {type(row[key]).__name__}, expected text")
    return row[key]


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    if key not in row:
        raise RowFault(f"lacks {key}")
    if not isinstance(row[key], list) or not all(isinstance(item, str) for item in row[key]):
        raise RowFault(f"{key} is not a list of texts")
    return tuple(row[key])


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON with characters as they are; a lone surrogate, which no file can hold, as its escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)
