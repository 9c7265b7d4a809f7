"""A task whose answers are texts: its files are read one row at a time, and its submission is written."""

import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import matching, refuse_missing
from nexttoken.data.json_lines import dump_json, json_rows
from nexttoken.data.row_faults import Faults, Place, Tally
from nexttoken.errors import UserError, first_five
from nexttoken.tasks.row_keys import log_unseen
from nexttoken.tasks.submission import find_ids, write_submission
from nexttoken.tasks.surrogates import log_surrogates, replace_surrogates, replaced
from nexttoken.types import Example, Split, TextPredictions

log = logging.getLogger(__name__)

ID_KEYS = ("task_id", "id", "dialogue_id", "conversation_id", "uuid")  # the first that a row has is its id


@dataclass(frozen=True, slots=True)
class Entry:
    """An example of a row, and the row's id as the file has it, 7 or "7": a submission gives it back so.

    `remarks` say what had to be changed in the row; each is counted, as are its keys `unseen` by the model.
    """

    original: int | str
    example: Example
    place: Place
    remarks: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


Reader = Callable[[dict[str, Any], Place], list[Entry]]  # raises RowFault


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

    def read(self, split: Split) -> list[Example]:
        """Return all rows. Raises UserError naming the first five faulty ones by file and line."""
        return list(self.stream(split))

    def stream(self, split: Split) -> Iterator[Example]:
        """Yield rows as they are read, without holding them: the files of `split` may be larger than the memory.

        With `skip_faulty`, faulty rows are left out of training and counted; test rows are never left out.

        Raises: UserError at the files' end where a row was faulty; no row behind the first of those is yielded.
        """
        for entry in self._entries(split):
            yield entry.example

    def write(self, predictions: TextPredictions, path: Path) -> None:
        """Write the submission, `{"task_id": ..., "output": ...}` a line in the order of the test files.

        A lone surrogate, which stricter readers refuse, becomes U+FFFD. Raises UserError where a prediction is missing,
        given twice, of no row, or not text; nothing is written then.
        """
        entries = list(self._entries("test", quiet=True))
        if len(predictions.texts) != len(predictions.ids):
            raise UserError(f"{len(predictions.ids)} ids have {len(predictions.texts)} answers; expected one each")
        pairs = zip(predictions.ids, predictions.texts, strict=True)
        if wrong := [row_id for row_id, text in pairs if not isinstance(text, str)]:
            raise UserError(f"the answers of ids {first_five(wrong)} are no text; generate them again")
        order = find_ids("the answers", predictions.ids, "the test files", [entry.example.id for entry in entries])
        texts = [replaced(predictions.texts[place]) for place in order]
        rows = [(entry.original, text) for entry, text in zip(entries, texts, strict=True)]
        write_submission(("task_id", "output"), rows, path, self.suffix)

    def _entries(self, split: Split, quiet: bool = False) -> Iterator[Entry]:
        faults, remarks, num_surrogates, is_empty = Faults(), dict[str, Tally](), 0, True
        unseen = Counter[str]()
        for path in self._paths(split):
            reader = self.reader(path, split)

            def read(row: dict[str, Any], place: Place, reader: Reader = reader) -> list[Entry]:
                entries = reader(row, place)
                for entry in entries:
                    faults.claim_id(entry.example.id, place)
                return entries

            for entries in faults.sound_rows(json_rows(path), read):
                is_empty = False
                unseen.update({key for entry in entries for key in entry.unseen})
                if faults.count and not (self.skip_faulty and split == "train"):
                    continue  # the files will be refused: the rest is read for further faults alone
                for entry in entries:
                    example, count = replace_surrogates(entry.example)
                    num_surrogates += count
                    for remark in entry.remarks:
                        remarks.setdefault(remark, Tally()).add(entry.place)
                    yield replace(entry, example=example)
        if not quiet:
            for remark, tally in remarks.items():
                log.info("%s: %s (%s)", remark, f"{tally.count:,} row{'s' * (tally.count != 1)}", tally)
            log_surrogates(num_surrogates)
            log_unseen(unseen)
        refuse_faults(faults, split, self.skip_faulty)
        if is_empty:
            raise UserError(f"{self.input_dir} has no sound {split} row: expected {self.kind}s with some")

    def _paths(self, split: Split) -> list[Path]:
        names = self.train_files if split == "train" else self.test_files
        folder = Path(self.input_dir)
        return matching(folder, names, self.kind) or refuse_missing(folder, str(names), self.kind)


def refuse_faults(faults: Faults, split: Split, skip_faulty: bool) -> None:
    """Raise UserError where rows are faulty, unless they are training rows that `skip_faulty` leaves out."""
    if split == "test":
        faults.refuse("every test row needs an answer: mend them")
    if not skip_faulty:
        faults.refuse("mend them, or leave them out with task.skip_faulty=true")
    if faults.count:
        log.info("%s; left out of training, for task.skip_faulty=true", faults.line)


def tags_of(row: Mapping[str, Any], own: Collection[str], place: Place) -> dict[str, str]:
    """Return what else the row says, as texts: lists of texts joined by commas, other values as JSON."""
    further = {key: _as_text(value) for key, value in row.items() if key not in own and key not in ID_KEYS}
    return {key: text for key, text in further.items() if text} | {"file": place.file}


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return dump_json(value)
