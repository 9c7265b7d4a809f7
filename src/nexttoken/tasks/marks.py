"""Marks for written answers, such as 0 to 4: a judge is a closed task, its marks the answers and its score log loss."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nexttoken.data.json_lines import json_rows
from nexttoken.data.row_faults import Faults, Place, RowFault, id_of, is_whole, optional_text, text_of
from nexttoken.data.tables_in_memory import rows_in_memory
from nexttoken.errors import MissingFile, UserError
from nexttoken.metrics.decisions import MARK_METRICS, expected_marks
from nexttoken.tasks.baselines.regression import MarkBaseline
from nexttoken.tasks.instruction_formats.conversation import shown_keys
from nexttoken.tasks.instruction_formats.formats import asked
from nexttoken.tasks.row_keys import log_unseen, unseen_keys
from nexttoken.tasks.submission import check_probs, find_ids, write_submission
from nexttoken.tasks.surrogates import replaced
from nexttoken.types import INPUT, INSTRUCTION, Baseline, Example, LabelPredictions, Metric, Split

if TYPE_CHECKING:
    import pandas as pd

RESPONSE = "response"
OPTIONAL = (INPUT, "reference", "rubric")  # "" where a row has none
TEXTS = (INSTRUCTION, RESPONSE, *OPTIONAL)
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
        if not (is_whole(self.lowest) and is_whole(self.highest) and self.lowest < self.highest):
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
            raise MissingFile(f"{path} is not there: expected JSON lines with {FORMAT}; see docs/judge.md")
        return self._examples(json_rows(path), needs_mark=split == "train")

    def parse(self, frame: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> list[Example]:
        """Return the examples of rows in memory, a table or dictionaries. Raises UserError naming faulty rows."""
        return self._examples(rows_in_memory(frame, TEXTS), needs_mark=False)

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        """Return the probabilities that the marks were drawn from, from truth.jsonl; only generated samples have it.

        Raises: UserError naming the lines without an id or a number for each mark.
        """
        path = Path(self.input_dir) / "truth.jsonl"
        if not path.is_file():
            return {}
        faults = Faults()

        def probs_of(row: Mapping[str, Any], place: Place) -> tuple[str, tuple[float, ...]]:
            row_id, probs = str(id_of(row, ["id"], place)), row.get("probs")
            faults.claim_id(row_id, place)
            if not isinstance(probs, list) or [type(prob) for prob in probs] != [float] * len(self.classes):
                raise RowFault(f"probs is not a list of {len(self.classes)} numbers such as 0.2")
            return row_id, tuple(probs)

        rows = dict(faults.sound_rows(json_rows(path), probs_of))
        faults.refuse("mend them, or remove the file, which only a generated sample has", path)
        check_probs(str(path), list(rows), np.array([*rows.values()]), self.classes)
        return rows

    def group_text(self, example: Example) -> str:
        """Answers to one instruction share a fold: a judge may not have seen its reference before."""
        return "\n".join(example.fields[INSTRUCTION] + example.fields[INPUT])

    def baselines(self) -> tuple[Baseline, ...]:
        return (MarkBaseline(len(self.classes)),)

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write id, the expected mark and every mark's probability, in the order of the test file."""
        check_probs("the predictions", predictions.ids, predictions.probs, self.classes)
        ids = [example.id for example in self.read("test")]
        order = find_ids("the predictions", predictions.ids, str(self._path("test")), ids)
        write_marks(path, ids, np.asarray(predictions.probs)[order], self.lowest)

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        return []  # the submission says it all

    def _path(self, split: Split) -> Path:
        return Path(self.input_dir) / (self.train_file if split == "train" else self.test_file)

    def _examples(self, rows: Iterable[tuple[Place, Any]], needs_mark: bool) -> list[Example]:
        faults, unseen = Faults(), Counter[str]()

        def example(row: Mapping[str, Any], place: Place) -> Example:
            if row.get("id") is None:
                raise RowFault("lacks id, a text or a whole number")
            row_id = str(id_of(row, ["id"], place))
            faults.claim_id(row_id, place)
            texts = {name: text_of(row, name) for name in (INSTRUCTION, RESPONSE)}
            texts |= {name: optional_text(row, name) or "" for name in OPTIONAL}
            full = asked(row, texts[INSTRUCTION], texts[INPUT])
            texts |= {INSTRUCTION: full.instruction, INPUT: full.input}
            unseen.update(unseen_keys(row, shown_keys(row).union(TEXTS)))
            return mark_example(row_id, texts, self._label(row.get("mark"), needs_mark))

        examples = list(faults.sound_rows(rows, example))
        faults.refuse(f"expected {FORMAT}; mend or remove them")
        log_unseen(unseen)
        return examples

    def _label(self, mark: Any, needs_mark: bool) -> int | None:
        is_unpublished = not is_whole(mark) or (mark == -1 and self.lowest > -1)
        if not needs_mark and is_unpublished:
            return None
        if not is_whole(mark) or not self.lowest <= mark <= self.highest:
            raise RowFault(f"mark is {mark!r}, expected a whole number from {self.lowest} to {self.highest}")
        return mark - self.lowest


def mark_example(row_id: str, texts: Mapping[str, str], label: int | None = None) -> Example:
    """Return an example to be marked: instruction and response, and those of input, reference and rubric in `texts`."""
    fields = {name: (replaced(texts.get(name, "")),) for name in (INSTRUCTION, RESPONSE, *OPTIONAL)}
    return Example(row_id, fields, label)


def write_marks(path: Path, ids: Sequence[str], probs: np.ndarray, lowest: int) -> None:
    """Write a CSV: id, mark (the expected one), and p<mark>, the probability of each mark; whole or not at all."""
    columns = ["id", "mark", *(f"p{lowest + place}" for place in range(probs.shape[1]))]
    rows = np.column_stack([expected_marks(probs, lowest), probs]).tolist()
    write_submission(columns, ([row_id, *row] for row_id, row in zip(ids, rows, strict=True)), path)
