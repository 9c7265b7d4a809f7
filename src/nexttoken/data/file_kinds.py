"""Kinds of files that are no text, told by their first bytes and named with what mends them."""

import logging
import re
from functools import cache
from pathlib import Path

from nexttoken.errors import UserError

NUM_BYTES = 2_048  # of a file's beginning, in which every kind shows
FROM_PARQUET = "convert it with `pandas.read_parquet(path).to_json(new_path, orient='records', lines=True)`"
GZIP_INSTEAD = "or compress it with gzip, which is read"
AS_ROWS = "write its rows as CSV or JSON lines"
KINDS: dict[str, tuple[str, str]] = {  # pattern of the first bytes: name, fix
    r"(\xef\xbb\xbf)?version https?://(git-lfs\.github\.com/spec|git-media\.io|hawser\.github\.com/spec)/": (
        "a Git LFS pointer, not the file itself",
        "run `git lfs pull` in its repository, or download the file",
    ),
    r"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.{0,1000}?-->\s*)?<(?i:!doctype html|html|head|body)\b": (
        "a web page, such as a login page",
        "sign in and download the file again",
    ),
    r"(\xef\xbb\xbf)?\s*<\?xml version=": (
        "an XML document, such as a storage's error message",
        "download the file again",
    ),
    r"PAR1[\x00-\x08\x0e-\x1f\x80-\xff]": ("a Parquet table", FROM_PARQUET),
    r"(ARROW1|FEA1)[\x00-\x08]": ("an Arrow table (Feather)", AS_ROWS),
    r"\x1f\x8b": ("packed twice with gzip", "unpack it once with `gunzip`"),
    r"\x28\xb5\x2f\xfd": ("compressed with zstd", f"unpack it with `unzstd`, {GZIP_INSTEAD}"),
    r"BZh[1-9]1AY&SY": ("compressed with bzip2", f"unpack it with `bunzip2`, {GZIP_INSTEAD}"),
    r"\xfd7zXZ\0": ("compressed with xz", f"unpack it with `unxz`, {GZIP_INSTEAD}"),
    r"\x04\x22\x4d\x18": ("compressed with lz4", f"unpack it with `unlz4`, {GZIP_INSTEAD}"),
    r"\x5d\0\0[\x01-\x80]\0": ("compressed with lzma", f"unpack it with `unlzma`, {GZIP_INSTEAD}"),
    r"[^\n]{257}ustar[\0 ]": ("a tar archive", "unpack it with `tar -xf`"),
    r"PK\x03\x04.*word/": ("a Word document (docx)", "save it as plain text in UTF-8"),
    r"PK\x03\x04.*(\[Content_Types\]\.xml|xl/)": (
        "an Office document, such as an Excel workbook (xlsx)",
        "save its sheet as CSV UTF-8, or its text as .txt",
    ),
    r"PK\x03\x04": ("a zip archive", "unzip it in place"),
    r"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document, such as xls", "save its sheet as CSV UTF-8"),
    r"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07": ("an archive (7z or RAR)", "unpack it first"),
    r"SQLite format 3\0": ("an SQLite database", "export its table as CSV"),
    r"\x93NUMPY|\x89HDF\r\n|Obj\x01": ("a binary table (NumPy, HDF5 or Avro)", AS_ROWS),
    r"\x80[\x02-\x05][\x95c}\](]": ("a pickle, which could run code", f"{AS_ROWS} if you trust it"),
    r"%PDF-": ("a PDF document", "extract its text first"),
    r"\x89PNG\r\n|\xff\xd8\xff": ("an image", "name a file of text"),
}
PATTERNS = {re.compile(pattern.encode("latin-1"), re.S): kind for pattern, kind in KINDS.items()}

STAND_INS = [*PATTERNS][:3]  # what is downloaded in the place of a file
OF_MODELS = (".json", ".safetensors", ".bin", ".pt", ".model", ".txt", ".jinja", ".gguf")  # endings

log = logging.getLogger(__name__)


@cache  # a file is opened several times, to be recognised and to be read
def say_kind(path: Path, kind: str, suffix: str) -> None:
    """Log once what the file is, where its name says something else."""
    if path.suffix.lower() != suffix:
        log.info("%s is %s, and is read as such", path, kind)


def refuse_kind(path: Path, head: bytes) -> None:
    """Raise UserError where a file that begins with `head` is of a kind that is no text."""
    if kind := next((kind for pattern, kind in PATTERNS.items() if pattern.match(head)), None):
        raise UserError(f"{path} is {kind[0]}; {kind[1]}")


def refuse_stand_ins(model: Path) -> None:
    """Raise UserError where a model's file, or one of its folder, is a Git LFS pointer or a web page instead."""
    listed = [model] if model.is_file() else model.iterdir()
    for path in sorted(path for path in listed if path.suffix in OF_MODELS and path.is_file()):
        with path.open("rb") as file:
            head = file.read(NUM_BYTES)
        if any(pattern.match(head) for pattern in STAND_INS):
            refuse_kind(path, head)
