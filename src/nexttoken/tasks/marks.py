"""Marks for written answers, such as 0 to 4: a judge is a closed task, its marks the answers and its score log loss."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nexttoken.data.csv_tables import rows_in_memory
from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import SURROGATE, Fault, Place, RowFault, faults_line, json_rows, text_of
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.marks import MARK_METRICS, expected_marks
from nexttoken.tasks.baselines.marks import MarkBaseline
from nexttoken.tasks.submission import check_probs, check_same_ids
from nexttoken.types import INPUT, INSTRUCTION, Baseline, Example, LabelPredictions, Metric, Split

if TYPE_CHECKING:
    import pandas as pd

RESPONSE = "response"
OPTIONAL = (INPUT, "reference", "rubric")  # "" where a row has none
FORMAT = "id, instruction, response, mark, and where there are input, reference, rubric"


@dataclass(frozen=True)
class Marks:
    """The JSON lines of `input_dir`: an instruction, an answer to it, and the mark that somebody gave it.

    `name` is the run's folder, output/<name>/; marks go from `lowest` to `highest` by ones.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"labels"})

    input_dir: str | os.PathLike[str]
    name: str = "marks"
    lowest: int = 0
    highest: int = 4
    train_file: str = "train.jsonl"
    test_file: str = "test.jsonl"

    metrics: ClassVar[tuple[Metric, ...]] = MARK_METRICS
    has_published_scores: ClassVar[bool] = False
    suffix: ClassVar[str] = ".csv"

    def __post_init__(self) -> None:
        if not (_is_whole(self.lowest) and _is_whole(self.highest) and self.lowest < self.highest):
            raise UserError(
                f"task.lowest={self.lowest} task.highest={self.highest}: expected whole numbers, the first one smaller"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.lowest, self.highest + 1)))

    def read(self, split: Split) -> list[Example]:
        """Return one example per line. Raises UserError naming the first five faulty ones by file and line."""
        path = self._path(split)
        if not path.is_file():
            raise UserError(f"{path} is not there: expected JSON lines with {FORMAT}; see docs/judge.md")
        rows = enumerate(json_rows(path), start=1)
        places = ((Place(path.name, line, number), row) for number, (line, row) in rows)
        return self._examples(places, needs_mark=split == "train")

    def parse(self, frame: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> list[Example]:
        """Return the examples of rows in memory, a table or dictionaries. Raises UserError naming faulty rows."""
        rows = enumerate(rows_in_memory(frame), start=1)
        places = ((Place("the rows given", 0, number), row) for number, row in rows)
        return self._examples(places, needs_mark=False)

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        """Return the probabilities that the marks were drawn from, from truth.jsonl; only generated samples have it."""
        path = Path(self.input_dir) / "truth.jsonl"
        return {str(row["id"]): tuple(row["probs"]) for _, row in json_rows(path)} if path.is_file() else {}

    def group_text(self, example: Example) -> str:
        """Answers to one instruction share a fold: a judge may not have seen its reference before."""
        return "\n".join(example.fields[INSTRUCTION] + example.fields[INPUT])

    def baseline(self) -> Baseline:
        return MarkBaseline(len(self.classes))

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write id, the expected mark and every mark's probability, in the order of the test file."""
        check_probs("the predictions", predictions.ids, predictions.probs, self.classes)
        ids = [example.id for example in self.read("test")]
        check_same_ids("the predictions", predictions.ids, str(self._path("test")), ids)
        row = {row_id: place for place, row_id in enumerate(predictions.ids)}
        write_marks(path, ids, np.asarray(predictions.probs)[[row[row_id] for row_id in ids]], self.lowest)

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        return []  # the submission says it all

    def _path(self, split: Split) -> Path:
        return Path(self.input_dir) / (self.train_file if split == "train" else self.test_file)

    def _examples(self, rows: Iterable[tuple[Place, Any]], needs_mark: bool) -> list[Example]:
        examples, faults = [], []
        for place, row in rows:
            try:
                examples.append(self._example(row, needs_mark))
            except RowFault as fault:
                faults.append(Fault(place, str(fault)))
        if faults:
            raise UserError(f"{faults_line(faults)}; expected {FORMAT}; mend or remove them")
        if twice := list(_repeated(example.id for example in examples)):
            raise UserError(f"ids used more than once: {first_five(twice)}; keep one row of each")
        return examples

    def _example(self, row: Any, needs_mark: bool) -> Example:
        """Raises RowFault for a row that is none."""
        if isinstance(row, RowFault):
            raise row
        if not isinstance(row, Mapping):
            raise RowFault(f"{type(row).__name__}, expected an object")
        if not (isinstance(row.get("id"), str) or _is_whole(row.get("id"))) or not str(row["id"]).strip():
            raise RowFault("lacks id, a text or a whole number")
        texts = {name: text_of(row, name) for name in (INSTRUCTION, RESPONSE)}
        texts |= {name: "" if _is_absent(row.get(name)) else text_of(row, name) for name in OPTIONAL}
        return mark_example(str(row["id"]), texts, self._label(row, needs_mark))

    def _label(self, row: Mapping[str, Any], needs_mark: bool) -> int | None:
        mark = row.get("mark")
        if not needs_mark and not _is_whole(mark):
            return None
        if not _is_whole(mark) or not self.lowest <= int(mark) <= self.highest:  # type: ignore[arg-type]
            raise RowFault(f"mark is {mark!r}, expected a whole number from {self.lowest} to {self.highest}")
        return int(mark) - self.lowest  # type: ignore[arg-type]


def mark_example(row_id: str, texts: Mapping[str, str], label: int | None = None) -> Example:
    """An example to be marked: instruction and response, and of input, reference and rubric those that `texts` has."""
    fields = {name: (SURROGATE.sub("\ufffd", texts.get(name, "")),) for name in (INSTRUCTION, RESPONSE, *OPTIONAL)}
    return Example(row_id, fields, label)


def write_marks(path: Path, ids: Sequence[str], probs: np.ndarray, lowest: int) -> None:
    """Write a CSV: id, mark (the expected one), and p<mark>, the probability of each mark; whole or not at all."""
    names = [f"p{lowest + place}" for place in range(probs.shape[1])]
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "mark", *names])
        marks = expected_marks(probs, lowest).tolist()
        rows.writerows([row_id, mark, *row] for row_id, mark, row in zip(ids, marks, probs.tolist(), strict=True))


def _is_absent(value: object) -> bool:
    """An absent cell of a table is NaN, an absent value of JSON null."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _repeated(ids: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for row_id in ids:
        if row_id in seen:
            yield row_id
        seen.add(row_id)
