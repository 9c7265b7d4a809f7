"""Files of open answers: instruction rows in several formats, dialogues, and the submission that answers them."""

from itertools import islice
from pathlib import Path

from nexttoken.data.json_lines import json_rows
from nexttoken.errors import UserError, nearest
from nexttoken.tasks.instruction_formats.formats import FORMATS, InstructionFormat

FIRST_ROWS = 100  # of which one must tell a file's format: the very first may be the faulty one


def named(name: str) -> InstructionFormat:
    """Raises UserError with the nearest name for one that no format has."""
    by_name = {instruction_format.name: instruction_format for instruction_format in FORMATS}
    if name not in by_name:
        raise UserError(f"no instruction format is called {name!r}; {nearest(name, by_name)}")
    return by_name[name]


def recognised(path: Path) -> InstructionFormat:
    """Return the format of the first row that has one. Raises UserError where none of the first rows has."""
    objects = [row for _, row in islice(json_rows(path), FIRST_ROWS) if isinstance(row, dict)]
    for row in objects:
        for instruction_format in FORMATS:
            if any(keys <= row.keys() for keys in instruction_format.known_by):
                return instruction_format
    names = ", ".join(instruction_format.name for instruction_format in FORMATS)
    keys = ", ".join(next(iter(objects), ())) or "no JSON object"
    raise UserError(f"{path} is in no instruction format that is known here ({names}): its first row has {keys[:200]}")
