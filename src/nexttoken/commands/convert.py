"""Convert a quiz file from any format into any other, and list its faulty rows.

python -m nexttoken convert from=input/sample-quiz/train.jsonl to=instruction out=train-instruction.json
python -m nexttoken convert from=input/jaqket/train_questions.json to=instruction num_options=5 out=train-5.json
python -m nexttoken convert from=input/jaqket/dev1_questions.json to=instruction_input num_options=5 out=dev1-5.json
python -m nexttoken convert from=input/jmmlu to=plain out=jmmlu.jsonl

Arguments:
  from=...            the file to read; for jmmlu also a folder of CSV files
  to=...              format to write
  out=...             file or folder to write
  from_format=...     format to read (default: auto, recognised from the file)
  num_options=...     keep at most this many options per question, the right one among them (default: all)
  seed=0              seed of the draw of the wrong options
  skip_faulty=true    leave out faulty rows (default: they stop the conversion)

Formats: jaqket, jcommonsenseqa, jmmlu, science_exam, instruction, instruction_input, plain.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import Field, NonNegativeInt

from nexttoken.commands.arguments import Arguments
from nexttoken.data.row_faults import Faults
from nexttoken.errors import UserError, first_five, visible
from nexttoken.tasks.quiz_formats import named, recognised
from nexttoken.tasks.quiz_formats.candidates import choose_options
from nexttoken.tasks.quiz_formats.question import Question, remark_lines
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat


class ConvertArguments(Arguments):
    source: Annotated[Path, Field(alias="from")]
    target: Annotated[str, Field(alias="to")]
    out: Path
    from_format: str = "auto"
    num_options: Annotated[int, Field(ge=2)] | None = None
    seed: NonNegativeInt = 0
    skip_faulty: bool = False


def main(arguments: Sequence[str]) -> None:
    given = ConvertArguments.parse(arguments)
    source, out, target = given.source, given.out, named(given.target)
    source_format = recognised(source) if given.from_format == "auto" else named(given.from_format)
    if out.exists() and out.samefile(source):
        raise UserError(f"out={out} is the file that is read; name another")
    questions = source_format.scan(source, faults := Faults())
    print(f"{source} is {source_format.name}")
    _print_lines(*describe(questions, faults))
    if not given.skip_faulty:
        faults.refuse("mend them, or leave them out with skip_faulty=true")
    if given.num_options is not None:
        fix = "leave out num_options, and write a format that holds them all"
        questions = choose_options(questions, given.num_options, given.seed, fix)
    lost = rehearse(target, questions, out)
    target.write(questions, out)
    print(f"{out}: {len(questions):,} questions written as {target.name}, and read back the same")
    if lost:
        _print_lines(f"{target.name} has no place for: {', '.join(lost)}")


def _print_lines(*lines: str) -> None:
    """Print genres and keys of the data, which may hold half characters and what commands a terminal."""
    print(visible("\n".join(lines)))


def describe(questions: Sequence[Question], faults: Faults) -> list[str]:
    """Return a line each for the counts, options, genres, remarks and faulty rows of a file."""
    lines = [f"{len(questions):,} questions, {sum(q.answer is not None for q in questions):,} with their answer"]
    if questions:
        counts = sorted({len(question.options) for question in questions})
        lines.append(f"options a question: {counts[0]}" + (f" to {counts[-1]}" if counts[1:] else ""))
    genres = dict.fromkeys(question.genre for question in questions if question.genre)
    lines.append(f"{len(genres):,} genres: {first_five(genres)}" if genres else "no genres")
    if repeated := len(questions) - len({question.id for question in questions}):
        lines.append(f"{repeated:,} questions have the id of another")
    return [*lines, *remark_lines(questions), *([faults.line] if faults.count else [])]


def rehearse(target: QuizFormat, questions: Sequence[Question], out: Path) -> list[str]:
    """Write and read back in a temporary folder, so that a failure changes nothing at `out`; return the lost fields.

    Raises UserError where the format cannot hold the questions, or changes them.
    """
    with TemporaryDirectory() as folder:
        part = Path(folder) / out.name
        try:
            target.write(questions, part)
            return losses(questions, read_back(target, questions, part))
        except UserError as error:
            raise UserError(str(error).replace(str(part), str(out))) from None


def read_back(target: QuizFormat, questions: Sequence[Question], out: Path) -> list[Question]:
    """Return the written questions in the order of `questions`; a JMMLU folder is read in the order of its files."""
    written = target.read(out)
    if not out.is_dir():
        return written
    order = sorted(range(len(questions)), key=lambda place: f"{questions[place].genre}.csv")
    by_place = dict(zip(order, written, strict=True))
    return [by_place[place] for place in range(len(questions))]


def losses(questions: Sequence[Question], written: Sequence[Question]) -> list[str]:
    """Name the fields that the written file lacks: ids, genres, further keys. Raises UserError for any other change."""
    pairs = list(zip(questions, written, strict=True))
    if bad := [q.name for q, w in pairs if replace(q, id=w.id, genre=w.genre, extra=w.extra) != w]:
        raise UserError(f"{len(bad):,} questions read back otherwise than they were written: {first_five(bad)}")
    # repr, since NaN, which JSON files may contain, is not equal to itself
    keys = {key for q, w in pairs for key in q.extra if repr(w.extra.get(key)) != repr(q.extra[key])}
    lost = {
        "ids": any(q.id != w.id for q, w in pairs),
        "genres": any(q.genre != w.genre for q, w in pairs),
        f"the keys {', '.join(sorted(keys))}": bool(keys),
    }
    return [name for name, is_lost in lost.items() if is_lost]
