"""Quiz file formats, found by listing this folder: all are read into the same questions and written from them."""

import sys
from pathlib import Path

from nexttoken.data.text_files import read_text
from nexttoken.errors import UserError
from nexttoken.tasks.format_lists import format_called, list_formats
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat


def all_formats() -> list[QuizFormat]:
    """Return the formats in the order in which they are tried on a file."""
    return list_formats(sys.modules[__name__], QuizFormat)


def named(name: str) -> QuizFormat:
    """Raises UserError with the nearest name where no format has this one."""
    return format_called(name, all_formats(), "quiz")


def recognised(path: Path) -> QuizFormat:
    """Return the format of a file, or of a folder of JMMLU's files. Raises UserError where it has none."""
    if not path.exists():
        raise UserError(f"{path} is not there: expected a quiz file; check the path")
    formats = all_formats()
    for quiz_format in formats:
        if quiz_format.recognise(path):
            return quiz_format
    if path.is_file():
        read_text(path)  # an empty file or another encoding says so itself
    names = ", ".join(quiz_format.name for quiz_format in formats)
    raise UserError(f"{path} is in no quiz format that is known here ({names}); convert it to one of them")
