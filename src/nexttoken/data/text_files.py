"""Text files opened as UTF-8, gzipped or not; another encoding is named with the command that converts it."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from nexttoken.errors import UserError

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can spell it, no encoder writes it
GZIP = b"\x1f\x8b"
KANA = re.compile("[ぁ-んァ-ヶ]")


@contextmanager
def open_text(path: Path, newline: str = "", expected: str = "a file of rows") -> Iterator[TextIO]:
    """Open a file to be read without its BOM; `newline` as in `open`.

    Raises: UserError where the file is absent, damaged, or not UTF-8, also while it is read.
    """
    packed = False
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else path.open("rb") as binary:
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline)
    except UnicodeDecodeError:
        if packed:
            raise UserError(f"{path} does not unpack to UTF-8; unpack it and convert it with iconv") from None
        _refuse_encoding(path)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected {expected}") from None


def read_text(path: Path) -> str:
    """Raises UserError as `open_text` does, and for a file without text."""
    with open_text(path) as file:
        text = file.read()
    if not text.strip():
        raise UserError(f"{path} is empty: expected rows; download or convert it again")
    return text


def _refuse_encoding(path: Path) -> NoReturn:
    """Name the first byte that is not UTF-8, the probable encoding, and the fix."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is 0x{data[error.start]:02x}"
        raise UserError(f"{path} is not UTF-8 ({place}): {_encoding_fix(data, error.reason)}") from None
    raise UserError(f"{path} changed while it was read: run the command again")


def _encoding_fix(data: bytes, reason: str) -> str:
    if data.startswith(b"PK\x03\x04"):
        return "it is a zip archive; unzip it in place"
    if reason == "unexpected end of data":
        return "it ends inside a character; download it again"
    if _decode(data, "utf-8", errors="surrogatepass"):
        return "it holds lone surrogates (halves of a character); remove them with `iconv -c -f UTF-8 -t UTF-8`"
    likely = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    # Nearly any bytes decode as Japanese, so it is Japanese only where kana come out.
    likely = next((encoding for encoding in ("euc-jp", "cp932") if KANA.search(_decode(data, encoding))), likely)
    return f"it looks like {likely}; convert it with `iconv -f {likely} -t UTF-8`, or download it again"


def _decode(data: bytes, encoding: str, errors: str = "strict") -> str:
    """Return the text, "" where `data` is not of that encoding."""
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError:
        return ""
