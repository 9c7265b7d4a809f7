"""Kaggle – LLM Science Exam, a CSV: id, prompt, the options A to E, and the answer's letter in train.csv."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import csv_rows, read_columns, table_rows, write_csv
from nexttoken.data.files import whole_file
from nexttoken.data.row_faults import Place, RowFault
from nexttoken.data.text_files import SURROGATE
from nexttoken.errors import UserError
from nexttoken.tasks.quiz_formats.question import Question, letter_index
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat, genre_of, text_id

OPTIONS = tuple("ABCDE")
NEEDED = ("id", "prompt", *OPTIONS)
OWN = {*NEEDED, "answer", "genre"}


class ScienceExam(QuizFormat):
    """Two to five options: absent ones are empty cells at the end. Genre and further texts are columns of their own.

    A submission names the best three letters: the competition scores MAP@3.
    """

    name = "science_exam"
    position = 4
    max_options = len(OPTIONS)
    num_answers = 3

    def recognise(self, path: Path) -> bool:
        try:
            header = next((cells for _, cells in csv_rows(path)), []) if path.is_file() else []
        except UserError:
            return False
        return {*NEEDED} <= {*header}

    def rows(self, path: Path) -> Iterable[tuple[Place, Any]]:
        return table_rows(path, NEEDED)

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        if missing := [key for key in NEEDED[1:4] if key not in row]:
            raise RowFault(f"lacks {', '.join(missing)}")
        options = [str(row.get(letter) or "") for letter in OPTIONS]
        while options and not options[-1]:
            options.pop()
        answer = letter_index(str(row.get("answer") or ""), len(options))
        extra = {key: value for key, value in row.items() if key not in OWN and value != ""}
        return Question(
            text_id(row, "id", place), str(row["prompt"]), tuple(options), answer, genre_of(row), extra, place
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


FORMATS = (ScienceExam(),)
