"""Quiz file formats: one file each, all read into the same questions and written from them."""

from pathlib import Path

from nexttoken.data.json_lines import read_text
from nexttoken.errors import UserError, nearest
from nexttoken.tasks.quiz_formats.instruction import Instruction, InstructionInput
from nexttoken.tasks.quiz_formats.jaqket import Jaqket
from nexttoken.tasks.quiz_formats.jcommonsenseqa import JCommonsenseQA
from nexttoken.tasks.quiz_formats.jmmlu import Jmmlu
from nexttoken.tasks.quiz_formats.plain import Plain
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat
from nexttoken.tasks.quiz_formats.science_exam import ScienceExam

# In the order in which they are tried on a file: the more particular first.
FORMATS: tuple[QuizFormat, ...] = (
    Jaqket(),
    JCommonsenseQA(),
    InstructionInput(),
    Instruction(),
    Plain(),
    ScienceExam(),
    Jmmlu(),
)


def named(name: str) -> QuizFormat:
    """Raises UserError with the nearest name for one that no format has."""
    by_name = {quiz_format.name: quiz_format for quiz_format in FORMATS}
    if name not in by_name:
        raise UserError(f"no quiz format is called {name!r}; {nearest(name, by_name)}")
    return by_name[name]


def recognised(path: Path) -> QuizFormat:
    """Return the format that a file, or a folder of JMMLU's files, is in. Raises UserError where it is none."""
    if not path.exists():
        raise UserError(f"{path} is not there: expected a quiz file; check the path")
    for quiz_format in FORMATS:
        if quiz_format.recognise(path):
            return quiz_format
    if path.is_file():
        read_text(path)  # an empty file or another encoding says so itself
    names = ", ".join(quiz_format.name for quiz_format in FORMATS)
    raise UserError(f"{path} is in no quiz format that is known here ({names}); convert it to one of them")
