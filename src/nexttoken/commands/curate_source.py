"""The files that are curated: which they are, their hashes, how many rows they seem to hold, and their licence."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.files import matching
from nexttoken.errors import UserError
from nexttoken.types import Example

TEXT_ENDINGS = ("", ".txt", ".md", ".rst")
BLOCK = 1 << 20  # bytes read at once
UNKNOWN = "unknown – state it with licence=..."
LICENCE_LINE = re.compile(r"^[\s#*_-]*licen[cs]e\**\s*[:：]\s*\**\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class SourceFile:
    """One file as it was read."""

    name: str
    num_bytes: int
    sha256: str
    num_lines: int

    @classmethod
    def read(cls, path: Path, name: str) -> "SourceFile":
        digest, num_bytes, num_lines, block = hashlib.sha256(), 0, 0, b""
        with path.open("rb") as file:
            while more := file.read(BLOCK):
                block = more
                digest.update(block)
                num_bytes += len(block)
                num_lines += block.count(b"\n")
        return cls(name, num_bytes, digest.hexdigest(), num_lines + (block[-1:] not in (b"", b"\n")))


def source_files(task: Any, input_dir: Path) -> list[SourceFile]:
    """The task's training files, or, where it does not name them, every file of the folder."""
    if not input_dir.is_dir():
        raise UserError(f"{input_dir} is no folder; expected input_dir=<folder with the rows to curate>")
    names = getattr(task, "train_files", None)
    found = matching(input_dir, names, "training file") if names else []
    paths = found or sorted(path for path in input_dir.iterdir() if path.is_file() and not path.name.startswith("."))
    return [SourceFile.read(path, str(path.relative_to(input_dir))) for path in paths]


def training_rows(task: Any) -> Iterator[Example]:
    """The task's training rows, one at a time where it can."""
    return iter(task.stream("train") if hasattr(task, "stream") else task.read("train"))


def find_licence(input_dir: Path) -> str:
    """What a LICENSE beside the files is headed by, or the `license: ...` of a README; UNKNOWN without either."""
    for path in named(input_dir, "LICENSE", "LICENCE"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"{next((line.strip() for line in lines if line.strip()), 'empty')} ({path.name})"
    for path in named(input_dir, "README"):
        if found := LICENCE_LINE.search(path.read_text(encoding="utf-8", errors="replace")):
            return f"{found.group(1)} ({path.name})"
    return UNKNOWN


def named(folder: Path, *beginnings: str) -> list[Path]:
    """Files of these names, in capitals or not: README, readme.md, LICENSE-CC.txt; rows are none of them."""
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in TEXT_ENDINGS)
    return sorted(path for path in files if path.name.upper().startswith(beginnings))
