"""Quizzes as CSV files: Kaggle's LLM Science Exam, and JMMLU."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.csv_tables import csv_rows, read_columns, table_rows, write_csv
from nexttoken.data.files import whole_file
from nexttoken.data.row_faults import Place, RowFault, text_of
from nexttoken.data.text_files import SURROGATE
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.quiz_formats.question import LETTERS, Question, letter_index
from nexttoken.tasks.quiz_formats.quiz_format import QuizFormat, genre_of, text_id

OPTIONS = tuple("ABCDE")
NEEDED = ("id", "prompt", *OPTIONS)
OWN = {*NEEDED, "answer", "genre"}
ENCODING = "utf-8-sig"  # JMMLU's published files begin with a BOM


class ScienceExam(QuizFormat):
    """Kaggle – LLM Science Exam: id, prompt, the options A to E, and the answer's letter in train.csv.

    Two to five options: absent ones are empty cells at the end. Genre and further texts are columns of their own. A
    submission names the best three letters: the competition scores MAP@3.
    """

    name = "science_exam"
    position = 4
    max_options = len(OPTIONS)
    num_answers = 3
    text_keys = frozenset({"prompt", *OPTIONS, "answer", "genre"})

    def recognise(self, path: Path) -> bool:
        return {*NEEDED} <= {*_first_cells(path)}

    def rows(self, path: Path) -> Iterable[tuple[Place, Any]]:
        return table_rows(path, NEEDED)

    def question(self, row: Mapping[str, Any], place: Place) -> Question:
        text, options = text_of(row, "prompt"), _options(row, OPTIONS)
        answer = letter_index(row.get("answer", ""), len(options))
        extra = _extra(row, OWN)
        return Question(text_id(row, "id", place), text, options, answer, genre_of(row), extra, place)

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
        _refuse_surrogates([*row, *row.values()])
        return row

    def save(self, questions: Sequence[Question], rows: Sequence[dict[str, str]], path: Path) -> None:
        columns = dict.fromkeys([*NEEDED, "answer", "genre", *[key for row in rows for key in row]])
        filled = [key for key in columns if key in NEEDED or any(row.get(key) for row in rows)]
        with whole_file(path) as part:
            write_csv([filled, *[[row.get(key, "") for key in filled] for row in rows]], part)
            read_columns(part, NEEDED, how_to_get="give every question an id")

    def option_names(self, question: Question) -> list[str]:
        return list(OPTIONS[: len(question.options)])


class Jmmlu(QuizFormat):
    """JMMLU, one headerless CSV a subject: question, options, and the right one's letter; the subject is the genre.

    A path is a file, or a folder of files that are read in the order of their names. There is no place for ids (they
    are `<genre>-<row>`, from 1) and further keys: writing leaves them out. An unknown answer is an empty cell.
    """

    name = "jmmlu"
    position = 5  # a science exam may look like it
    max_options = 18
    text_keys = frozenset({"question", *LETTERS, "answer", "genre"})

    def recognise(self, path: Path) -> bool:
        files = _files(path)
        cells = _first_cells(files[0]) if files and files[0].suffix == ".csv" else []
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
        options = _options(row, LETTERS)
        answer = letter_index(row.get("answer", ""), len(options))
        text, extra = text_of(row, "question"), _extra(row, {"id", "question", "answer", "genre", *LETTERS})
        return Question(text_id(row, "id", place), text, options, answer, genre_of(row), extra, place)

    def row(self, question: Question) -> list[str]:
        letter = "" if question.answer is None else LETTERS[question.answer]
        cells = [question.text, *question.options, letter]
        _refuse_surrogates(cells)
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
                f"{path} is one file for the genres {first_five(by_genre)}; name a folder for one file each"
            )
        with whole_file(path) as part:
            write_csv(rows, part, ENCODING)

    def option_names(self, question: Question) -> list[str]:
        return list(LETTERS[: len(question.options)])


def _options(row: Mapping[str, Any], letters: Sequence[str]) -> tuple[str, ...]:
    """Return the options in the columns of these letters, without absent and empty ones at the end.

    Raises: RowFault where an absent one, which a table in memory may have, stands before another option.
    """
    options = [row.get(letter) for letter in letters]
    while options and not options[-1]:
        options.pop()
    if None in options:
        absent, last = letters[options.index(None)], letters[len(options) - 1]
        fix = "where its text is None or NA, read the table with keep_default_na=False"
        raise RowFault(f"option {absent} is absent, and {last} is not; {fix}")
    return tuple(map(str, options))


def _extra(row: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in own and value != ""}


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.csv")) if path.is_dir() else [path]


def _save_folder(by_genre: Mapping[str, Sequence[list[str]]], folder: Path) -> None:
    if bad := [genre for genre in by_genre if not _names_file(genre)]:
        shown = first_five(repr(genre[:40]) for genre in bad)
        raise UserError(f"{folder}: no file can be named after the genre {shown}; name one .csv file")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already there; move it away or name another folder")
    with scratch_folder(folder) as part:
        for genre, rows in by_genre.items():
            write_csv(rows, part / f"{genre}.csv", ENCODING)
        put_in_place(part, folder)


def _names_file(genre: str) -> bool:
    """Return whether a file can have this name: at most 255 bytes, and no half characters."""
    if not genre.strip() or genre[0] == "." or {*"/\\\0"} & {*genre} or SURROGATE.search(genre):
        return False
    return len(f"{genre}.csv".encode()) <= 255


def _first_cells(path: Path) -> list[str]:
    """Return the first row's cells, [] where the file is no CSV."""
    try:
        return next((cells for _, cells in csv_rows(path)), []) if path.is_file() else []
    except UserError:
        return []


def _refuse_surrogates(cells: Iterable[str]) -> None:
    if any(SURROGATE.search(cell) for cell in cells):
        raise RowFault("a lone surrogate (half a character), which only JSON can spell")


FORMATS = (ScienceExam(), Jmmlu())
