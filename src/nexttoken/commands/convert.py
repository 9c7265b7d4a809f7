"""A quiz file converted from any format into any other, with what is in it and what is wrong, row by row.

python -m nexttoken convert from=input/sample-quiz/train.jsonl to=instruction out=train-instruction.json
python -m nexttoken convert from=input/jaqket/train_questions.json to=instruction num_options=5 out=train-5.json
python -m nexttoken convert from=input/jaqket/dev1_questions.json to=instruction_input num_options=5 out=dev1-5.json
python -m nexttoken convert from=input/jmmlu to=plain out=jmmlu.jsonl

Formats: jaqket, jcommonsenseqa, jmmlu (a CSV, or a folder of them), science_exam, instruction, instruction_input,
plain.
num_options=5 cuts more candidates to five, the right one among them; seed=0 draws the others.
Faulty rows are listed and stop the conversion; skip_faulty=true leaves them out.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import Field, NonNegativeInt

from nexttoken.commands.arguments import Arguments
from nexttoken.data.json_lines import SURROGATE, Fault, RowFault, faults_line
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.quiz_formats import named, recognised
from nexttoken.tasks.quiz_formats.candidates import choose, drawn
from nexttoken.tasks.quiz_formats.folder import refuse
from nexttoken.tasks.quiz_formats.question import Question, remark_lines
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat, Reading


class ConvertArguments(Arguments):
    source: Annotated[Path, Field(alias="from")]
    target: Annotated[str, Field(alias="to")]
    out: Path
    from_format: str = "auto"
    num_options: Annotated[int, Field(ge=2)] | None = None  # at most so many a question; None: all
    seed: NonNegativeInt = 0
    skip_faulty: bool = False


def describe(reading: Reading) -> list[str]:
    """Return what is in the file, a line each: count, answers, options, genres, remarks, faulty rows."""
    questions = reading.questions
    lines = [f"{len(questions):,} questions, {sum(q.answer is not None for q in questions):,} with their answer"]
    if questions:
        counts = sorted({len(question.options) for question in questions})
        lines.append(f"options a question: {counts[0]}" + (f" to {counts[-1]}" if counts[1:] else ""))
    genres = dict.fromkeys(question.genre for question in questions if question.genre)
    lines.append(f"{len(genres):,} genres: {first_five(genres)}" if genres else "no genres")
    if repeated := len(questions) - len({question.id for question in questions}):
        lines.append(f"{repeated:,} questions have the id of another")
    lines += remark_lines(questions)
    return [*lines, *([faults_line(reading.faults)] if reading.faults else [])]


def cut_options(questions: Sequence[Question], num_options: int | None, seed: int) -> list[Question]:
    """Keep at most so many options a question. Raises UserError where the right one is not known."""
    if num_options is None:
        return list(questions)
    kept, faults = [], []
    for question in questions:
        try:
            kept.append(choose(question, drawn(question, num_options, seed)))
        except RowFault as fault:
            faults.append(Fault(question.name, str(fault)))
    refuse(faults, "leave out num_options, and write a format that holds them all")
    return kept


def losses(questions: Sequence[Question], written: Sequence[Question]) -> list[str]:
    """Name what the file as read again lacks. Raises UserError where that is more than ids, genres and further keys."""
    bad = [q.name for q, w in zip(questions, written, strict=True) if _substance(q) != _substance(w)]
    if bad:
        raise UserError(f"{len(bad):,} questions read back otherwise than they were written: {first_five(bad)}")
    pairs = list(zip(questions, written, strict=True))
    keys = sorted({key for q, w in pairs for key in q.extra if not _same(w.extra.get(key), q.extra[key])})
    lost = {
        "ids": any(q.id != w.id for q, w in pairs),
        "genres": any(q.genre != w.genre for q, w in pairs),
        f"the keys {', '.join(keys)}": bool(keys),
    }
    return [name for name, is_lost in lost.items() if is_lost]


def _same(one: object, other: object) -> bool:
    return one == other or repr(one) == repr(other)  # NaN, which JSON files do hold, is not equal to itself


def _substance(question: Question) -> Question:
    return replace(question, id="", genre="", extra={})


def read_back(target: QuizFormat, questions: Sequence[Question], out: Path) -> list[Question]:
    """Return the written file's questions in the order of `questions`: JMMLU's files follow their names."""
    written = target.read(out)
    if out.is_dir():
        order = sorted(range(len(questions)), key=lambda row: f"{questions[row].genre}.csv")
        place = {row: position for position, row in enumerate(order)}
        written = [written[place[row]] for row in range(len(questions))]
    return written


def rehearse(target: QuizFormat, questions: Sequence[Question], out: Path) -> list[str]:
    """Write and read back under `out`'s name in a folder of its own: only what passes may replace what is at `out`.

    Return what the format has no place for; raise UserError, with nothing left behind, where the questions differ.
    """
    with TemporaryDirectory() as folder:
        part = Path(folder) / out.name
        try:
            target.write(questions, part)
            return losses(questions, read_back(target, questions, part))
        except UserError as error:
            raise UserError(str(error).replace(str(part), str(out))) from None


def main(arguments: Sequence[str]) -> None:
    given = ConvertArguments.parse(arguments)
    source, out, target = given.source, given.out, named(given.target)
    source_format = recognised(source) if given.from_format == "auto" else named(given.from_format)
    if out.exists() and out.samefile(source):
        raise UserError(f"out={out} is the file that is read; name another")
    reading = source_format.scan(source)
    print(f"{source} is {source_format.name}")
    _say(*describe(reading))
    if reading.faults and not given.skip_faulty:
        raise UserError(f"{faults_line(reading.faults)}; mend them, or leave them out with skip_faulty=true")
    questions = cut_options(reading.questions, given.num_options, given.seed)
    lost = rehearse(target, questions, out)
    target.write(questions, out)
    print(f"{out}: {len(questions):,} questions written as {target.name}, and read back the same")
    if lost:
        _say(f"{target.name} has no place for: {', '.join(lost)}")


def _say(*lines: str) -> None:
    """Print with U+FFFD for half characters, which genres and keys may hold and no terminal takes."""
    print(SURROGATE.sub("\ufffd", "\n".join(lines)))
