"""Text files opened as UTF-8, gzipped or not; another encoding is named with the command that converts it."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from nexttoken.data.file_kinds import NUM_BYTES, refuse_kind, say_kind
from nexttoken.errors import MissingFile, UserError

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can spell it, no encoder writes it
UTF16 = (b"\xff\xfe", b"\xfe\xff")
GZIP = b"\x1f\x8b"
KANA = re.compile("[ぁ-んァ-ヶ]")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # no text has them, but for escape sequences


@contextmanager
def open_text(path: Path, newline: str = "", expected: str = "a file of rows") -> Iterator[TextIO]:
    """Open a file to be read without its BOM; `newline` as in `open`.

    Raises: UserError where the file is absent (MissingFile), damaged, no text, or not UTF-8, also while it is read.
    """
    packed = False
    try:
        packed = _head(path).startswith(GZIP)
        with gzip.open(path) if packed else path.open("rb") as binary:
            head = binary.peek(NUM_BYTES)[:NUM_BYTES]
            refuse_kind(path, head)
            if head.count(b"\0") * 5 > len(head) and not head.startswith(UTF16):
                raise UserError(f"{path} is no UTF-8 text: {_encoding_fix(head)}")
            if packed:
                say_kind(path, "packed with gzip", ".gz")
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline)
    except UnicodeDecodeError:
        if packed:
            raise UserError(f"{path} does not unpack to UTF-8; unpack it and convert it with iconv") from None
        _refuse_encoding(path)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from None
    except OSError as error:
        kind = MissingFile if isinstance(error, FileNotFoundError) else UserError
        raise kind(f"{path} cannot be read ({error.strerror}): expected {expected}") from None


def _head(path: Path) -> bytes:
    """Raises UserError for a name that no file can have."""
    try:
        with path.open("rb") as file:
            return file.read(len(GZIP))
    except ValueError as error:  # a NUL byte, or half a character
        raise UserError(f"{str(path)!r} is no name of a file ({error}); expected the path of a file") from None


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
        cut = "it ends inside a character; download it again" if error.reason == "unexpected end of data" else ""
        raise UserError(f"{path} is not UTF-8 ({place}): {cut or _encoding_fix(data)}") from None
    raise UserError(f"{path} changed while it was read: run the command again")


def _encoding_fix(data: bytes) -> str:
    if not data.count(b"\0") and _decode(data, "utf-8", errors="surrogatepass"):
        return "it holds lone surrogates (halves of a character); remove them with `iconv -c -f UTF-8 -t UTF-8`"
    likely = _likely_encoding(data)
    if not likely:
        return "it looks like a binary file; expected text"
    return f"it looks like {likely}; convert it with `iconv -f {likely} -t UTF-8`, or download it again"


def _likely_encoding(data: bytes) -> str:
    """Return the encoding's name, "" for bytes that are no text in any."""
    if data.startswith(UTF16):
        return "utf-32" if data.startswith(b"\xff\xfe\0\0") else "utf-16"
    if (zeros := data.count(b"\0")) * 5 > len(data):  # a Latin letter in UTF-16 has a zero byte at one side
        odd = data[1::2].count(b"\0")
        return "utf-16le" if odd > 0.9 * zeros else "utf-16be" if odd < 0.1 * zeros else ""
    # Nearly any bytes decode as Japanese, so it is Japanese only where kana come out.
    if kana := next((name for name in ("euc-jp", "cp932") if KANA.search(_decode(data, name))), ""):
        return kana
    return "" if CONTROL.search(data) else "cp1252"


def _decode(data: bytes, encoding: str, errors: str = "strict") -> str:
    """Return the text, "" where `data` is not of that encoding."""
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError:
        return ""
