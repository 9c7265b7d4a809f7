"""What a quiz format is: it turns rows into questions or faults, and questions into rows, or refuses them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import Fault, Place, RowFault, dump_json, faults_line, json_rows
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.quiz_formats.question import MAX_OPTIONS, Question


@dataclass(frozen=True)
class Reading:
    """A file's sound questions in order, and its faulty rows."""

    questions: list[Question]
    faults: list[Fault]


class QuizFormat(ABC):
    """One file format. A new one is a subclass in a file of its own and a line in `nexttoken.tasks.quiz_formats`."""

    name: ClassVar[str]
    max_options: ClassVar[int] = MAX_OPTIONS
    answer_columns: ClassVar[tuple[str, str]] = ("id", "prediction")  # of a submission
    answer_suffix: ClassVar[str] = "csv"
    num_answers: ClassVar[int] = 1  # best options that a submission names per question

    @abstractmethod
    def recognise(self, path: Path) -> bool:
        """Whether the first rows look like this format. Never raises for a file that is something else."""

    @abstractmethod
    def rows(self, path: Path) -> Iterator[tuple[Place, Any]]:
        """Yield each row with its place; a row that is broken by itself is a RowFault instead."""

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
        """A question from a row that is already in memory, by column name."""
        return self.question(row, place)

    def option_names(self, question: Question) -> list[str]:
        """How a submission calls each option; a single word each where `num_answers` is above 1."""
        return [str(index) for index in range(len(question.options))]

    def scan(self, path: Path) -> Reading:
        """Read every row, the faulty ones aside. Raises UserError for a file that is no such file, or holds no row."""
        questions, faults = [], []
        for place, row in self.rows(path):
            try:
                if isinstance(row, RowFault):
                    raise row
                questions.append(self.question(row, place).check(self.max_options))
            except RowFault as fault:
                faults.append(Fault(place, str(fault)))
        if not questions and not faults:
            raise UserError(f"{path} has no questions: expected the format {self.name}")
        return Reading(questions, faults)

    def read(self, path: Path) -> list[Question]:
        """Raises UserError naming the first five faulty rows."""
        reading = self.scan(path)
        if reading.faults:
            raise UserError(f"{path}: {faults_line(reading.faults)}; mend them (expected the format {self.name})")
        return reading.questions

    def write(self, questions: Sequence[Question], path: Path) -> None:
        """Raises UserError naming the first five questions that this format cannot hold; nothing is written then."""
        rows, faults = [], []
        for question in questions:
            try:
                rows.append(self.row(question.check(self.max_options)))
            except RowFault as fault:
                faults.append(Fault(question.name, str(fault)))
        if not rows and not faults:
            raise UserError(f"{path}: there are no questions to be written")
        if faults:
            raise UserError(
                f"{path}: {len(faults):,} questions do not fit {self.name}: {first_five(faults)}; choose another"
            )
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

    def rows(self, path: Path) -> Iterator[tuple[Place, Any]]:
        for number, (line, row) in enumerate(json_rows(path), start=1):
            is_row = isinstance(row, dict | RowFault)
            yield Place(path.name, line, number), row if is_row else RowFault("not a JSON object")

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
            part.write_text("".join(dump_json(row) + "\n" for row in rows), encoding="utf-8")


def id_of(row: Mapping[str, Any], key: str, place: Place) -> str:
    """The row's id as text; `<file>-<row>` where it has none. Raises RowFault for one that is no text or number."""
    value = row.get(key)
    if value is None:
        return f"{place.stem}-{place.row}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowFault(f"{key} is {value!r}, expected text or a whole number")
    try:
        return str(value)
    except ValueError:  # Python writes no longer number
        raise RowFault(f"{key} is a number of more than 4,300 digits") from None


def genre_of(row: Mapping[str, Any]) -> str:
    genre = row.get("genre") or ""
    if not isinstance(genre, str):
        raise RowFault(f"genre is {type(genre).__name__}, expected text")
    return genre
