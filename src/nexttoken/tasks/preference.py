"""LMSYS – Chatbot Arena Human Preference Predictions: which of two answers people prefer, in Kaggle's own files."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nexttoken.data.csv_tables import PUT, Columns, read_columns, table_rows
from nexttoken.data.row_faults import Faults, Place, RowFault, id_of, text_of
from nexttoken.data.tables_in_memory import rows_in_memory
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import METRICS
from nexttoken.tasks.answer_columns import SubmissionForm
from nexttoken.tasks.row_keys import log_unseen, unseen_keys
from nexttoken.tasks.sample_file import SampleFile
from nexttoken.tasks.shards import Shards
from nexttoken.tasks.submission import check_probs, find_ids, read_truth, validate_submission, write_probs
from nexttoken.tasks.surrogates import without_surrogates
from nexttoken.transforms.orders import A_B_TIE
from nexttoken.types import Baseline, Example, LabelPredictions, Metric, Split, Swap

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("prompt", "response_a", "response_b")
CLASSES = ("winner_model_a", "winner_model_b", "winner_tie")
COLUMNS: Mapping[Split, list[str]] = {"train": ["id", *FIELDS, *CLASSES], "test": ["id", *FIELDS]}
Row = Mapping[str, Any]
GET = f"{PUT}; for Kaggle's LMSYS files run `python -m nexttoken kaggle download`"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preference:
    """The folder `input_dir` with train.csv, test.csv and sample_submission.csv as Kaggle ships them."""

    offers: ClassVar[frozenset[str]] = frozenset({"labels", "pairs"})

    input_dir: str | os.PathLike[str]
    name: str = "lmsys"  # output/<name>/

    classes: ClassVar[tuple[str, ...]] = CLASSES
    swap: ClassVar[Swap] = A_B_TIE
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    has_published_scores: ClassVar[bool] = True
    suffix: ClassVar[str] = ".csv"

    def path(self, file_name: str) -> Path:
        return Path(self.input_dir) / file_name

    def table(self, split: Split) -> Columns:
        """Return the columns of train.csv or test.csv as text. Raises UserError where it lacks one."""
        return read_columns(self.path(f"{split}.csv"), COLUMNS[split], GET)

    def read(self, split: Split) -> list[Example]:
        """Return one example per row: each field's turns in order, as many in each field, "" for an absent one.

        Raises: UserError naming the first five faulty rows by file and line, and where the ids of the test are not
        those of sample_submission.csv.
        """
        path = self.path(f"{split}.csv")
        examples = _examples(table_rows(path, COLUMNS[split], GET), split, path)
        if split == "test":
            ids, sample_ids = [example.id for example in examples], self._sample()["id"]
            find_ids(str(self.path("sample_submission.csv")), sample_ids, "test.csv", ids)
            if sample_ids != ids:
                log.info("sample_submission.csv orders its ids differently: the order of test.csv is followed")
        return examples

    def in_shards(self, size: int) -> Shards:
        """The test rows, `size` at a time."""
        path, sample = self.path("test.csv"), SampleFile(self.path("sample_submission.csv"))
        _check_header(self.path("sample_submission.csv"), sample.header)
        rows, make = partial(table_rows, path, COLUMNS["test"], GET), partial(_examples, split="test", source=path)
        form = SubmissionForm.of(sample.header, sample.path, None, CLASSES, "id")
        return Shards(path, size, rows, make, form, sample, lambda probs, threshold: probs)

    def parse(self, frame: "pd.DataFrame | Iterable[Row]") -> list[Example]:
        """Return the examples of test rows in memory. Raises UserError naming faulty rows by their number."""
        return _examples(rows_in_memory(frame), "test", "the table")

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        return read_truth(Path(self.input_dir), CLASSES)

    def group_text(self, example: Example) -> str:
        return "\n".join(example.fields["prompt"])

    def baselines(self) -> tuple[Baseline, ...]:
        from nexttoken.tasks.baselines.regression import PairBaseline

        return (PairBaseline(fields=("response_a", "response_b"), context="prompt", swap=self.swap.classes),)

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write the submission in the row order of test.csv and the column order of sample_submission.csv."""
        check_probs("the predictions", predictions.ids, predictions.probs, CLASSES)
        columns = list(self._sample())
        ids = [example.id for example in self.read("test")]
        probs = predictions.probs[find_ids("the predictions", predictions.ids, "test.csv", ids)]
        write_probs(ids, probs[:, [CLASSES.index(column) for column in columns[1:]]], columns, path)

    def check(self, path: Path) -> str:
        """Return the number of rows, in words. Raises UserError for a file that does not fit test.csv."""
        ids = read_columns(self.path("test.csv"), ["id"], GET)["id"]
        validate_submission(path, ids, list(read_columns(self.path("sample_submission.csv"), ["id"], GET)))
        return f"{len(ids):,} rows with the ids of {self.path('test.csv')} in order"

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        return []  # the submission says it all

    def _sample(self) -> Columns:
        path = self.path("sample_submission.csv")
        sample = read_columns(path, ["id", *CLASSES], GET)
        _check_header(path, [*sample])
        return sample


def _check_header(path: Path, header: list[str]) -> None:
    if header[0] != "id" or sorted(header[1:]) != sorted(CLASSES):
        raise UserError(f"{path} has the columns {', '.join(header)}; expected id, {', '.join(CLASSES)}")


def parse_turns(row: Row, field: str) -> list[str | None]:
    """Return a field's turns as the file has them. Raises RowFault for a cell that is no list of text and nulls."""
    try:
        turns = json.loads(text_of(row, field), strict=False)  # a raw line break inside a string is still one string
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list) or not all(turn is None or isinstance(turn, str) for turn in turns):
        raise RowFault(f'{field} is not a JSON list of strings and nulls such as ["first turn", null]')
    return turns


def _examples(rows: Iterable[tuple[Place, Row | RowFault]], split: Split, source: Path | str) -> list[Example]:
    faults, unseen = Faults(), Counter[str]()

    def example(row: Row, place: Place) -> Example:
        unseen.update(unseen_keys(row, COLUMNS["train"]))
        row_id = str(id_of(row, ["id"], place))
        faults.claim_id(row_id, place)
        turns = [parse_turns(row, field) for field in FIELDS]
        longest = max(1, *map(len, turns))  # turn i of a response answers turn i of the prompt
        padded = [tuple(turn or "" for turn in [*field, *[None] * (longest - len(field))]) for field in turns]
        return Example(row_id, dict(zip(FIELDS, padded, strict=True)), _label(row) if split == "train" else None)

    examples = list(faults.sound_rows(rows, example))
    faults.refuse("mend these rows, or download the file again", source)
    log_unseen(unseen)
    return without_surrogates(examples)


def _label(row: Row) -> int:
    one_hot = [row[name] for name in CLASSES]
    if sorted(one_hot) != ["0", "0", "1"]:
        raise RowFault(f"the winners are {', '.join(one_hot)[:40]}, expected 0 or 1 with exactly one 1")
    return one_hot.index("1")
