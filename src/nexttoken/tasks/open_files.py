"""A folder of files of open answers: which rows may be learnt from or answered, read one at a time."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import matching, refuse_missing
from nexttoken.data.json_lines import Place, RowFault, json_rows
from nexttoken.errors import UserError
from nexttoken.tasks.instruction_formats.answers import write_answers
from nexttoken.tasks.instruction_formats.entry import Entry, without_halves
from nexttoken.types import Example, Split, TextPredictions

log = logging.getLogger(__name__)

SHOWN = 5  # places that are named of any kind

Reader = Callable[[dict[str, Any], Place], list[Entry]]  # raises RowFault


@dataclass
class Tally:
    """How many, and the first few of them: bounded, however many rows of a gigabyte are faulty."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: object, count: int = 1) -> None:
        self.count += count
        if len(self.first) < SHOWN:
            self.first.append(str(place))

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more:,} more" if more > 0 else "")


@dataclass
class Tallies:
    """What one pass over the files has found beside the sound rows."""

    faults: Tally = field(default_factory=Tally)
    halves: Tally = field(default_factory=Tally)
    remarks: dict[str, Tally] = field(default_factory=dict)

    def remark(self, entry: Entry) -> None:
        for remark in entry.remarks:
            self.remarks.setdefault(remark, Tally()).add(entry.place)

    @property
    def faults_line(self) -> str:
        return f"{self.faults.count:,} row{' is' if self.faults.count == 1 else 's are'} faulty: {self.faults}"

    def log(self) -> None:
        for remark, tally in self.remarks.items():
            log.info("%s: %s (%s)", remark, f"{tally.count:,} row{'s' * (tally.count != 1)}", tally)
        if self.halves.count:
            log.info("%d lone surrogates (halves of a character) became U+FFFD", self.halves.count)


@dataclass(frozen=True)
class OpenFiles(ABC):
    """A task whose answers are texts: its files (names or patterns below `input_dir`), and the submission.

    `train_files` and `test_files` may name the same file: its answers are then what the written ones are compared to.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"texts"})

    name: str
    input_dir: str | os.PathLike[str]
    train_files: Sequence[str] = ("train.jsonl",)
    test_files: Sequence[str] = ("test.jsonl",)
    skip_faulty: bool = False

    classes: ClassVar[tuple[str, ...]] = ()  # the answers are open
    kind: ClassVar[str]  # of file, in messages
    suffix: ClassVar[str] = ".jsonl"  # of a submission's file name
    has_published_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.skip_faulty, bool):
            raise UserError(f"task.skip_faulty={self.skip_faulty}: expected true or false")

    @abstractmethod
    def reader(self, path: Path, split: Split) -> Reader:
        """Return what turns a row of this file into its entries."""

    @abstractmethod
    def group_text(self, example: Example) -> str:
        """Rows with (nearly) the same text share a fold."""

    def stratum(self, example: Example) -> int:
        """Folds hold equal shares of each; open rows are all of one."""
        return 0

    def read(self, split: Split) -> list[Example]:
        """Return all rows. Raises UserError naming the first five faulty ones by file and line.

        With the training rows, what predict.py will refuse of the test rows is logged: it is known before the training.
        """
        if split == "train":
            self._warn_of_test()
        return list(self.stream(split))

    def stream(self, split: Split) -> Iterator[Example]:
        """Yield rows as they are read, none of them kept: the files of `split` may be larger than the memory.

        Raises: UserError, at the files' end, where any was faulty, and no row is given behind the first of those; with
        `skip_faulty` they are left out of training, counted. Test rows are never left out.
        """
        for entry in self._entries(split):
            yield entry.example

    def write(self, predictions: TextPredictions, path: Path) -> None:
        """Write the submission, `{"task_id": ..., "output": ...}` a line in the order of the test files."""
        asked = [(entry.example.id, entry.original) for entry in self._entries("test", quiet=True)]
        write_answers(asked, predictions, path)

    def _entries(self, split: Split, quiet: bool = False) -> Iterator[Entry]:
        ids: set[str] = set()
        found, is_empty = Tallies(), True
        for path in self._paths(split):
            reader = self.reader(path, split)
            for number, (line, row) in enumerate(json_rows(path), start=1):
                place = Place(path.name, line, number)
                try:
                    entries = reader(_object(row), place)
                    _check_new(entries, ids)
                except RowFault as fault:
                    found.faults.add(f"{place} ({fault})")
                    continue
                is_empty = False
                if found.faults.count and not (self.skip_faulty and split == "train"):
                    continue  # it will be refused: the rest is read for further faults, not worked on
                for entry in entries:
                    example, halves = without_halves(entry.example)
                    if halves:
                        found.halves.add(place, halves)
                    found.remark(entry)
                    yield Entry(entry.original, example, place)
        if not quiet:
            found.log()
        self._conclude(found, split)
        if is_empty:
            raise UserError(f"{self.input_dir} has no sound {split} row: expected {self.kind}s with some")

    def _conclude(self, found: Tallies, split: Split) -> None:
        if not found.faults.count:
            return
        if split == "test":
            raise UserError(f"{found.faults_line}; every test row needs an answer: mend them")
        if not self.skip_faulty:
            raise UserError(f"{found.faults_line}; mend them, or leave them out with task.skip_faulty=true")
        log.info("%s; left out of training, for task.skip_faulty=true", found.faults_line)

    def _paths(self, split: Split) -> list[Path]:
        names = self.train_files if split == "train" else self.test_files
        folder = Path(self.input_dir)
        return matching(folder, names, self.kind) or refuse_missing(folder, str(names), self.kind)

    def _warn_of_test(self) -> None:
        try:
            self._paths("test")
        except UserError:  # test files may come later
            return
        try:
            for _ in self._entries("test", quiet=True):
                pass
        except UserError as error:
            log.warning("predict.py will refuse the test rows: %s", error)


def _object(row: Any) -> dict[str, Any]:
    if isinstance(row, RowFault):
        raise row
    if not isinstance(row, dict):
        raise RowFault("not a JSON object")
    return row


def _check_new(entries: Sequence[Entry], ids: set[str]) -> None:
    """Add the entries' ids to those known. Raises RowFault where one of them is known already."""
    own = [entry.example.id for entry in entries]
    if again := next((row_id for row_id in own if row_id in ids), None):
        raise RowFault(f"id {again} again")
    ids.update(own)
