"""The base of quiz formats: rows become questions or faults, and questions become rows or are refused."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.data.row_faults import Faults, Place, RowFault, id_of, is_whole, optional_text
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.format_lists import FileFormat
from nexttoken.tasks.quiz_formats.question import MAX_OPTIONS, Question, is_unknown


class QuizFormat(FileFormat, ABC):
    """One file format. A new one is a subclass, and an object of it in the tuple FORMATS of a file in this folder."""

    max_options: ClassVar[int] = MAX_OPTIONS
    answer_columns: ClassVar[tuple[str, str]] = ("id", "prediction")  # of a submission
    answer_suffix: ClassVar[str] = ".csv"
    num_answers: ClassVar[int] = 1  # best options that a submission names per question
    text_keys: ClassVar[frozenset[str]] = frozenset({"question", "options"})  # text in memory, too

    @abstractmethod
    def recognise(self, path: Path) -> bool:
        """Return whether the first rows are in this format. Raises nothing for a file that is something else."""

    @abstractmethod
    def rows(self, path: Path) -> Iterable[tuple[Place, Any]]:
        """Yield each row, or the RowFault of a broken one, with its place."""

    @abstractmethod
    def question(self, row: Any, place: Place) -> Question:
        """Raises RowFault where the row is no question."""

    @abstractmethod
    def row(self, question: Question) -> Any:
        """Raises RowFault where the format cannot hold the question."""

    @abstractmethod
    def save(self, questions: Sequence[Question], rows: Sequence[Any], path: Path) -> None:
        """Write the rows, whole or not at all."""

    def from_memory(self, row: Mapping[str, Any], place: Place) -> Question:
        """Return the question of a row in memory, by column name."""
        return self.question(row, place)

    def option_names(self, question: Question) -> list[str]:
        """Return the options' names in a submission; a single word each where `num_answers` is above 1."""
        return [str(index) for index in range(len(question.options))]

    def scan(self, path: Path, faults: Faults) -> list[Question]:
        """Return the sound questions; `faults` gets the other rows. Raises UserError for a file without rows."""
        count = faults.count
        questions = list(faults.sound_rows(self.rows(path), self._checked))
        if not questions and faults.count == count:
            raise UserError(f"{path} has no questions: expected the format {self.name}")
        return questions

    def read(self, path: Path) -> list[Question]:
        """Raises UserError naming the first five faulty rows."""
        questions = self.scan(path, faults := Faults())
        faults.refuse(f"mend them (expected the format {self.name})", path)
        return questions

    def _checked(self, row: Any, place: Place) -> Question:
        return self.question(row, place).check(self.max_options)

    def write(self, questions: Sequence[Question], path: Path) -> None:
        """Raises UserError naming the first five questions that this format cannot hold; nothing is written then."""
        faults = Faults()
        named = ((question.name, question) for question in questions)
        rows = list(faults.sound_rows(named, lambda question, _: self.row(question.check(self.max_options))))
        if faults.count:
            raise UserError(f"{path}: {faults.count:,} questions do not fit {self.name}: {faults}; choose another")
        if not rows:
            raise UserError(f"{path}: there are no questions to be written")
        self.save(questions, rows, path)


class JsonFormat(QuizFormat):
    """JSON lines (or one array) of objects, gzipped or not; keys that the format does not know are kept as `extra`."""

    own_keys: ClassVar[frozenset[str]]
    known_by: ClassVar[frozenset[str]]  # keys that only this format's rows have all of

    def recognise(self, path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            first = next((row for _, row in json_rows(path) if isinstance(row, dict)), {})
        except UserError:
            return False
        return self.known_by <= first.keys()

    def rows(self, path: Path) -> Iterable[tuple[Place, Any]]:
        return json_rows(path)

    def extra(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if key not in self.own_keys}

    def with_extra(self, row: dict[str, Any], question: Question, used: Sequence[str] = ()) -> dict[str, Any]:
        """Add the genre and what else the question holds. Raises RowFault for a key that means something else here."""
        extra = {key: value for key, value in question.extra.items() if key not in used}
        if taken := [key for key in extra if key in self.own_keys]:
            raise RowFault(f"its further key {first_five(taken)} has another meaning there")
        genre = {"genre": question.genre} if question.genre and "genre" not in row else {}
        return {**row, **genre, **extra}

    def save(self, questions: Sequence[Question], rows: Sequence[Any], path: Path) -> None:
        with whole_file(path) as part:
            write_json_lines(rows, part)


def text_id(row: Mapping[str, Any], key: str, place: Place) -> str:
    """Return the row's id as text, `<file>-<row>` where it has none. Raises RowFault for what is no id."""
    return str(id_of(row, [key], place))


def genre_of(row: Mapping[str, Any]) -> str:
    return optional_text(row, "genre") or ""


def index_of(row: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number, None where it is unknown. Raises RowFault for anything else."""
    value = row.get(key)
    if is_unknown(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not is_whole(value):
        raise RowFault(f"{key} is {value!r}, expected the number of an option")
    return value
