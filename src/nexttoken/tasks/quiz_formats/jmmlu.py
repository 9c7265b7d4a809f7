"""JMMLU, one headerless CSV a subject: question, options, and the right one's letter; the subject is the genre."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nexttoken.data.csv_tables import csv_rows, write_csv
from nexttoken.data.files import whole_file
from nexttoken.data.row_faults import Place, RowFault, text_of
from nexttoken.data.text_files import SURROGATE
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.quiz_formats.question import LETTERS, Question, letter_index
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat, genre_of, text_id

ENCODING = "utf-8-sig"  # the published files begin with a BOM


class Jmmlu(QuizFormat):
    """A file, or a folder of files that are read in the order of their names; a row has as many options as columns - 2.

    There is no place for ids (they are `<genre>-<row>`, from 1) and further keys: writing leaves them out. An unknown
    answer is an empty cell.
    """

    name = "jmmlu"
    position = 5  # a science exam may look like it

    def recognise(self, path: Path) -> bool:
        files = _files(path)
        if not files or files[0].suffix != ".csv" or not files[0].is_file():
            return False
        try:
            cells = next((cells for _, cells in csv_rows(files[0])), [])
        except UserError:
            return False
        return len(cells) >= 4 and cells[-1].strip() in {"", *LETTERS}

    def rows(self, path: Path) -> Iterator[tuple[Place, list[str]]]:
        for file in _files(path):
            yield from csv_rows(file)

    def question(self, row: Sequence[str], place: Place) -> Question:
        if len(row) < 4:
            raise RowFault(f"{len(row)} cells, expected a question, its options and the answer's letter")
        genre = place.file.removesuffix(".gz").removesuffix(".csv")
        text, *options, letter = row
        return Question(
            f"{genre}-{place.row}", text, tuple(options), letter_index(letter, len(options)), genre, {}, place
        )

    def from_memory(self, row: Mapping[str, Any], place: Place) -> Question:
        """The columns are question, A, B and so on, and answer, genre and id where they are known."""
        options = tuple(str(row[letter]) for letter in LETTERS if letter in row)
        answer = letter_index(str(row.get("answer") or ""), len(options))
        return Question(text_id(row, "id", place), text_of(row, "question"), options, answer, genre_of(row), {}, place)

    def row(self, question: Question) -> list[str]:
        letter = "" if question.answer is None else LETTERS[question.answer]
        cells = [question.text, *question.options, letter]
        if any(SURROGATE.search(cell) for cell in cells):
            raise RowFault("a lone surrogate (half a character), which only JSON can spell")
        return cells

    def save(self, questions: Sequence[Question], rows: Sequence[list[str]], path: Path) -> None:
        by_genre: dict[str, list[list[str]]] = {}
        for question, row in zip(questions, rows, strict=True):
            by_genre.setdefault(question.genre, []).append(row)
        if path.suffix != ".csv":
            _save_folder(by_genre, path)
            return
        if len(by_genre) > 1:
            raise UserError(
                f"{path} is one file for the genres {first_five(by_genre)}; name a folder for a file of each"
            )
        with whole_file(path) as part:
            write_csv(rows, part, ENCODING)

    def option_names(self, question: Question) -> list[str]:
        return list(LETTERS[: len(question.options)])


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.csv")) if path.is_dir() else [path]


def _save_folder(by_genre: Mapping[str, Sequence[list[str]]], folder: Path) -> None:
    if bad := [genre for genre in by_genre if not _names_file(genre)]:
        shown = first_five(repr(genre[:40]) for genre in bad)
        raise UserError(f"{folder}: no file can be named after the genre {shown}; name one .csv file")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already there; move it away or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent) as temporary:
        part = Path(temporary) / "whole"  # a temporary folder itself is closed to everybody else
        part.mkdir()
        for genre, rows in by_genre.items():
            write_csv(rows, part / f"{genre}.csv", ENCODING)
        os.replace(part, folder)


def _names_file(genre: str) -> bool:
    """Return whether a file can have this name: at most 255 bytes, and no half characters."""
    if not genre.strip() or genre[0] == "." or {*"/\\\0"} & {*genre} or SURROGATE.search(genre):
        return False
    return len(f"{genre}.csv".encode()) <= 255


FORMATS = (Jmmlu(),)
