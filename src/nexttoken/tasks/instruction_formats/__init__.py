"""Formats of instruction rows, found by listing this folder."""

from itertools import islice
from pathlib import Path

from nexttoken.data.json_lines import json_rows
from nexttoken.errors import UserError
from nexttoken.tasks.format_lists import FormatList
from nexttoken.tasks.instruction_formats.formats import InstructionFormat

FIRST_ROWS = 100  # of which one must tell a file's format: the very first may be the faulty one
FORMATS: FormatList[InstructionFormat] = FormatList(__name__, InstructionFormat, "instruction")
named = FORMATS.named


def recognised(path: Path) -> InstructionFormat:
    """Return the format of the first row that has one. Raises UserError where none of the first rows has."""
    rows = list(islice(json_rows(path), FIRST_ROWS))
    objects = [row for _, row in rows if isinstance(row, dict)]
    formats = FORMATS.all()
    for row in objects:
        for instruction_format in formats:
            if any(keys <= row.keys() for keys in instruction_format.known_by):
                return instruction_format
    if not objects:
        found = f"{rows[0][0]} ({rows[0][1]})" if rows else "it is an empty list"
        raise UserError(f"{path} has no JSON object a line: {found}; convert it to JSON lines")
    raise FORMATS.unknown(path, f": its first row has {', '.join(objects[0])[:200]}")
