"""A quiz's submission: two columns as CSV or JSON lines, written whole, and checked by reading it back."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import dump_json, json_rows
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.quiz_formats.csv_rows import write_csv
from nexttoken.tasks.quiz_formats.question import Question
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat


def write_answers(
    quiz_format: QuizFormat, questions: Sequence[Question], rankings: Sequence[Sequence[int]], path: Path
) -> None:
    """Write one row per question in order: its id and its best options, `rankings` holding their indices, best first.

    Raises: UserError where the file as written is not a valid submission; nothing is left behind then.
    """
    rows = []
    for question, ranking in zip(questions, rankings, strict=True):
        names = quiz_format.option_names(question)
        rows.append((question.id, " ".join(names[index] for index in ranking[: quiz_format.num_answers])))
    with whole_file(path) as part:
        if quiz_format.answer_suffix == "jsonl":
            lines = [dump_json(dict(zip(quiz_format.answer_columns, row, strict=True))) + "\n" for row in rows]
            part.write_text("".join(lines), encoding="utf-8")
        else:
            write_csv([quiz_format.answer_columns, *rows], part)
        validate_answers(quiz_format, questions, part)


def validate_answers(quiz_format: QuizFormat, questions: Sequence[Question], path: Path) -> None:
    """Read `path` and refuse (UserError) all but these ids in this order, each with distinct options of its own."""
    rows = _read(quiz_format, path)
    if [row_id for row_id, _ in rows] != [question.id for question in questions]:
        raise UserError(f"{path} does not have the ids of the test questions in order; write it with predict.py")
    bad = [q.id for q, (_, given) in zip(questions, rows, strict=True) if not _is_answer(quiz_format, q, given)]
    if bad:
        raise UserError(f"{path}: the answers of ids {first_five(bad)} are none of their options")


def _read(quiz_format: QuizFormat, path: Path) -> list[tuple[str, str]]:
    columns = quiz_format.answer_columns
    if quiz_format.answer_suffix == "jsonl":
        return [(row[columns[0]], row[columns[1]]) for _, row in json_rows(path)]
    table = read_columns(path, columns, how_to_get="write it with `python predict.py`")
    return list(zip(table[columns[0]], table[columns[1]], strict=True))


def _is_answer(quiz_format: QuizFormat, question: Question, given: str) -> bool:
    names = quiz_format.option_names(question)
    best = given.split(" ") if quiz_format.num_answers > 1 else [given]
    return {*best} <= {*names} and len({*best}) == len(best) == min(quiz_format.num_answers, len(names))
