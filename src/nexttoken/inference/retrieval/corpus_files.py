"""The files of a corpus: found below a folder, linked folders too, and read as titled texts by the kind of each."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import table_rows
from nexttoken.data.json_lines import json_rows
from nexttoken.data.row_faults import Place, RowFault
from nexttoken.data.text_files import open_text
from nexttoken.errors import UserError

OBJECTS = (".jsonl", ".json", ".parquet")
TABLES = (".csv", ".tsv")
KINDS = (*OBJECTS, *TABLES, ".txt")
FIX = (
    'expected .jsonl lines {"text": ...}, a .json array of them, .csv, .tsv or .parquet with a column text,'
    " or .txt with blank lines between passages, or .gz of them"
)
SENTENCE_END = re.compile(r"[。．！？!?\n]+[」』）\"']?|\.\s")

Text = tuple[int, str, str]  # first line, or row where a line holds several; title; text


def kind_of(path: Path) -> str:
    """Return the ending in lower case, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a corpus below `folder` without hidden ones; a folder that two links name is read once."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()  # else a link to a folder above it would be followed without end
            continue
        seen.add(real)
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(shown, key=lambda name: (Path(parent, name).is_symlink(), name))
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if kind_of(path) in KINDS and path.is_file())


def texts_of(path: Path, name: str) -> Iterator[Text]:
    """Yield the texts of a file. Raises UserError that names the line that cannot be read."""
    kind = kind_of(path)
    if kind in OBJECTS:
        yield from _records(json_rows(path), name)
    elif kind in TABLES:
        yield from _records(table_rows(path, ["text"], "choose another corpus"), name)
    else:
        yield from _paragraphs(path, name)


def pieces(text: str, characters: int) -> Iterator[str]:
    """`text` in parts of at most `characters`, each as many whole sentences as fit, or a part of one that does not."""
    start = 0
    while len(text) - start > characters:
        ends = [match.end() for match in SENTENCE_END.finditer(text, start, start + characters)]
        end = ends[-1] if ends else start + characters
        yield from filter(None, [text[start:end].strip()])
        start = end
    yield from filter(None, [text[start:].strip()])


def _records(rows: Iterable[tuple[Place, Any]], name: str) -> Iterator[Text]:
    for place, row in rows:
        text = None if isinstance(row, RowFault) else row.get("text")
        where = f"line {place.line}" if place.line else f"row {place.row}"
        if isinstance(row, RowFault):
            raise UserError(f"corpus {name}, {where}: {row}; {FIX}")
        if not isinstance(text, str):
            raise UserError(f"corpus {name}, {where}: text is {type(text).__name__}, not a text; {FIX}")
        yield place.line or place.row, str(row.get("title") or ""), text


def _paragraphs(path: Path, name: str) -> Iterator[Text]:
    """Yield each run of lines that are not blank, without a title. Raises UserError for JSON of another name."""
    first, paragraph = 1, list[str]()
    with open_text(path, newline="\n", expected="a corpus") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                first = first if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield first, "", _prose(paragraph, name, first)
                paragraph = []
    if paragraph:
        yield first, "", _prose(paragraph, name, first)


def _prose(lines: list[str], name: str, number: int) -> str:
    try:
        is_object = lines[0].startswith("{") and isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        is_object = False
    if is_object:
        raise UserError(f"corpus {name}, line {number}: a JSON object, not prose; name the file .jsonl")
    return "".join(lines)
