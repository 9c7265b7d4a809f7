"""Formats of instruction rows, found by listing this folder."""

import sys
from itertools import islice
from pathlib import Path

from nexttoken.data.json_lines import json_rows
from nexttoken.errors import UserError
from nexttoken.tasks.format_lists import format_called, list_formats
from nexttoken.tasks.instruction_formats.formats import InstructionFormat

FIRST_ROWS = 100  # of which one must tell a file's format: the very first may be the faulty one


def all_formats() -> list[InstructionFormat]:
    """Return the formats in the order in which they are tried on a row."""
    return list_formats(sys.modules[__name__], InstructionFormat)


def named(name: str) -> InstructionFormat:
    """Raises UserError with the nearest name where no format has this one."""
    return format_called(name, all_formats(), "instruction")


def recognised(path: Path) -> InstructionFormat:
    """Return the format of the first row that has one. Raises UserError where none of the first rows has."""
    objects = [row for _, row in islice(json_rows(path), FIRST_ROWS) if isinstance(row, dict)]
    formats = all_formats()
    for row in objects:
        for instruction_format in formats:
            if any(keys <= row.keys() for keys in instruction_format.known_by):
                return instruction_format
    names = ", ".join(instruction_format.name for instruction_format in formats)
    keys = ", ".join(next(iter(objects), ())) or "no JSON object"
    raise UserError(f"{path} is in no instruction format that is known here ({names}): its first row has {keys[:200]}")
