"""The rows of JSON and CSV files with the line on which each begins, so that a fault can be pointed at."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.quizzes.question import RowFault
from nexttoken.table import refuse_encoding

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can spell it, no encoder writes it
GZIP = b"\x1f\x8b"
SPACE = re.compile(r"\s*")


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text without its BOM, unpacked where it is gzipped; UserError names another encoding."""
    try:
        data = path.read_bytes()
        packed = data.startswith(GZIP)
        text = (gzip.decompress(data) if packed else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        if packed:
            raise UserError(f"{path} does not unpack to UTF-8; unpack it and convert it with iconv") from None
        refuse_encoding(path)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected a quiz file") from None
    if not text.strip():
        raise UserError(f"{path} is empty: expected a quiz file; download or convert it again")
    return text


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) for JSON lines or the elements of one JSON array; a line that is no JSON is a RowFault.

    The line of an element is 0 where another one begins on it, so that its number alone can name it.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        yield from _array_rows(path, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, RowFault(f"not JSON: {_reason(error)}")


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
            return
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


def _skip(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    return found.end() if found else position


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


def index_of(row: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number, None where it is absent or null. Raises RowFault for anything else."""
    value = row.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise RowFault(f"{key} is {value!r}, expected the number of an option")
    return value


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON with characters as they are; a lone surrogate, which no file can hold, as its escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def write_csv(rows: Sequence[Sequence[str]], path: Path, encoding: str = "utf-8") -> None:
    """Quote where needed; everywhere if a cell holds a carriage return, which Python 3.11 leaves bare."""
    returns = any("\r" in cell for row in rows for cell in row)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL).writerows(rows)
