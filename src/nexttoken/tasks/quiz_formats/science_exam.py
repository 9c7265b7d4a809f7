"""Kaggle – LLM Science Exam, a CSV: id, prompt, the options A to E, and the answer's letter in train.csv."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nexttoken.data.csv_tables import Columns, read_columns
from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import SURROGATE, Place, RowFault, is_packed, read_text
from nexttoken.errors import UserError
from nexttoken.tasks.quiz_formats.csv_rows import csv_rows, write_csv
from nexttoken.tasks.quiz_formats.jmmlu import letter_index
from nexttoken.tasks.quiz_formats.question import Question
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat, genre_of, id_of

OPTIONS = tuple("ABCDE")
NEEDED = ("id", "prompt", *OPTIONS)
OWN = {*NEEDED, "answer", "genre"}


class ScienceExam(QuizFormat):
    """Two to five options: absent ones are empty cells at the end. Genre and further texts are columns of their own.

    A submission names the best three letters: the competition scores MAP@3.
    """

    name = "science_exam"
    max_options = len(OPTIONS)
    num_answers = 3

    def recognise(self, path: Path) -> bool:
        try:
            header = next((cells for _, cells in csv_rows(path)), []) if path.is_file() else []
        except UserError:
            return False
        return {*NEEDED} <= {*header}

    def rows(self, path: Path) -> Iterator[tuple[Place, dict[str, str]]]:
        table = _table(path)
        lines = [line for line, _ in csv_rows(path)][1:]  # without the header's
        for number, (line, *cells) in enumerate(zip(lines, *table.values(), strict=True), start=1):
            yield Place(path.name, line, number), dict(zip(table, cells, strict=True))

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        if missing := [key for key in NEEDED[1:4] if key not in row]:
            raise RowFault(f"lacks {', '.join(missing)}")
        options = [str(row.get(letter) or "") for letter in OPTIONS]
        while options and not options[-1]:
            options.pop()
        answer = letter_index(str(row.get("answer") or ""), len(options))
        extra = {key: value for key, value in row.items() if key not in OWN and value != ""}
        return Question(
            id_of(row, "id", place), str(row["prompt"]), tuple(options), answer, genre_of(row), extra, place
        )

    def row(self, question: Question) -> dict[str, str]:
        if not question.options[-1]:
            raise RowFault("its last option is empty, which means an absent one there")
        if taken := [key for key in question.extra if key in OWN]:
            raise RowFault(f"its further key {', '.join(taken)} has another meaning there")
        options = [*question.options, *[""] * (len(OPTIONS) - len(question.options))]
        answer = "" if question.answer is None else OPTIONS[question.answer]
        extra = {key: value for key, value in question.extra.items() if isinstance(value, str)}  # all a cell can hold
        row = dict(zip(NEEDED, [question.id, question.text, *options], strict=True))
        row |= {"answer": answer, "genre": question.genre} | extra
        if any(SURROGATE.search(cell) for cell in [*row, *row.values()]):
            raise RowFault("a lone surrogate (half a character), which only JSON can spell")
        return row

    def save(self, questions: Sequence[Question], rows: Sequence[dict[str, str]], path: Path) -> None:
        columns = dict.fromkeys([*NEEDED, "answer", "genre", *[key for row in rows for key in row]])
        filled = [key for key in columns if key in NEEDED or any(row.get(key) for row in rows)]
        with whole_file(path) as part:
            write_csv([filled, *[[row.get(key, "") for key in filled] for row in rows]], part)
            read_columns(part, NEEDED, how_to_get="give every question an id")

    def option_names(self, question: Question) -> list[str]:
        return list(OPTIONS[: len(question.options)])


def _table(path: Path) -> Columns:
    """Return the table with every check of its own; a gzipped one is unpacked into a passing folder for that."""
    if not is_packed(path):
        return read_columns(path, NEEDED)
    with TemporaryDirectory() as folder:
        unpacked = Path(folder) / path.name
        unpacked.write_text(read_text(path), encoding="utf-8", newline="")
        try:
            return read_columns(unpacked, NEEDED)
        except UserError as error:
            raise UserError(str(error).replace(str(unpacked), str(path))) from None
