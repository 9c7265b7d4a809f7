"""Quiz file formats, found by listing this folder: all are read into the same questions and written from them."""

from pathlib import Path

from nexttoken.data.text_files import read_text
from nexttoken.errors import UserError
from nexttoken.tasks.format_lists import FormatList
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat

FORMATS: FormatList[QuizFormat] = FormatList(__name__, QuizFormat, "quiz")
named = FORMATS.named


def recognised(path: Path) -> QuizFormat:
    """Return the format of a file, or of a folder of JMMLU's files. Raises UserError where it has none."""
    if not path.exists():
        raise UserError(f"{path} is not there: expected a quiz file; check the path")
    if quiz_format := next((one for one in FORMATS.all() if one.recognise(path)), None):
        return quiz_format
    if path.is_file():
        read_text(path)  # an empty file or another encoding says so itself
    raise FORMATS.unknown(path, "; convert it to one of them")
