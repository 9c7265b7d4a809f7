"""LMSYS – Chatbot Arena Human Preference Predictions: which of two answers people prefer, in Kaggle's own files."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nexttoken.data.csv_tables import Columns, numbers, read_columns
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.probabilities import METRICS
from nexttoken.tasks.submission import check_probs, check_same_ids, write_submission
from nexttoken.transforms.orders import SWAPPED_CLASSES
from nexttoken.types import Baseline, Example, LabelPredictions, Metric, Split

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("prompt", "response_a", "response_b")
CLASSES = ("winner_model_a", "winner_model_b", "winner_tie")
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: json lets it through, no encoder does

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preference:
    """The folder `input_dir` with train.csv, test.csv and sample_submission.csv as Kaggle ships them."""

    offers: ClassVar[frozenset[str]] = frozenset({"labels", "pairs"})

    input_dir: str | os.PathLike[str]

    name: ClassVar[str] = "lmsys"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    has_published_scores: ClassVar[bool] = True
    suffix: ClassVar[str] = ".csv"

    def path(self, file_name: str) -> Path:
        return Path(self.input_dir) / file_name

    def table(self, split: Split) -> Columns:
        """Return the rows of train.csv or test.csv as text; the test's ids are those of sample_submission.csv."""
        if split == "train":
            return read_columns(self.path("train.csv"), ["id", *FIELDS, *CLASSES])
        table = read_columns(self.path("test.csv"), ["id", *FIELDS])
        ids, sample_ids = table["id"], self._sample()["id"]
        check_same_ids(str(self.path("sample_submission.csv")), sample_ids, "test.csv", ids)
        if sample_ids != ids:
            log.info("sample_submission.csv orders its ids differently: the order of test.csv is followed")
        return table

    def read(self, split: Split) -> list[Example]:
        return self.examples(self.table(split), split)

    def parse(self, frame: "pd.DataFrame") -> list[Example]:
        """Return the examples of test rows in memory. Raises UserError for a missing column or an absent text."""
        if missing := [column for column in ("id", *FIELDS) if column not in frame.columns]:
            raise UserError(
                f"the table has no column {', '.join(missing)}; expected id, {', '.join(FIELDS)} as in test.csv"
            )
        for column in ("id", *FIELDS):
            if (absent := frame[column].isna()).any():
                raise UserError(
                    f"{column} is absent in rows {first_five(frame.index[absent])}; expected text as in test.csv"
                )
        if frame["id"].dtype.kind == "f":
            raise UserError("the ids are floats, so their digits may be lost; read test.csv with dtype={'id': str}")
        return self.examples({name: frame[name].astype(str).tolist() for name in ("id", *FIELDS)}, "test")

    def examples(self, table: Columns, split: Split) -> list[Example]:
        """Return one example per row: each field's turns in order, as many in each field, "" for an absent one.

        Raises: UserError for cells that are not JSON lists of strings and nulls, and labels that are not one-hot.
        """
        path = self.path(f"{split}.csv")
        labels = _labels(path, table) if split == "train" else [None] * len(table["id"])
        columns = [parse_turns(path, table, field) for field in FIELDS]
        if count := sum(len(SURROGATE.findall(turn or "")) for column in columns for turns in column for turn in turns):
            log.info("%s: %d lone surrogates (halves of a character) became U+FFFD", path, count)
        return [
            Example(row_id, dict(zip(FIELDS, _same_length([_clean(turns) for turns in row]), strict=True)), label)
            for row_id, label, *row in zip(table["id"], labels, *columns, strict=True)
        ]

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        """Return true class probabilities by id from truth.csv, which generated samples have; else nothing."""
        path = self.path("truth.csv")
        if not path.exists():
            return {}
        table = read_columns(path, ["id", *CLASSES])
        probs = numbers(table, CLASSES)
        check_probs(str(path), table["id"], probs, CLASSES)
        return dict(zip(table["id"], map(tuple, probs.tolist()), strict=True))

    def group_text(self, example: Example) -> str:
        return "\n".join(example.fields["prompt"])

    def baseline(self) -> Baseline:
        from nexttoken.tasks.baselines.pairs import PairBaseline

        return PairBaseline(fields=("response_a", "response_b"), context="prompt", swap=SWAPPED_CLASSES)

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write the submission in the row order of test.csv and the column order of sample_submission.csv."""
        check_probs("the predictions", predictions.ids, predictions.probs, CLASSES)
        columns = list(self._sample())
        test_ids = self.table("test")["id"]
        check_same_ids("the predictions", predictions.ids, "test.csv", test_ids)
        row = {row_id: index for index, row_id in enumerate(predictions.ids)}
        order = [CLASSES.index(column) for column in columns[1:]]
        write_submission(test_ids, predictions.probs[[row[row_id] for row_id in test_ids]][:, order], columns, path)

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        return []  # the submission says it all

    def _sample(self) -> Columns:
        path = self.path("sample_submission.csv")
        sample = read_columns(path, ["id", *CLASSES])
        first, *classes = sample
        if first != "id" or sorted(classes) != sorted(CLASSES):
            raise UserError(f"{path} has the columns {', '.join(sample)}; expected id, {', '.join(CLASSES)}")
        return sample


def parse_turns(path: Path, table: Columns, field: str) -> list[list[str | None]]:
    """Return each row's turns as the file has them; raise UserError for cells that are not lists of text and nulls."""
    turns = [_json_turns(cell) for cell in table[field]]
    if bad := [row_id for row_id, cell_turns in zip(table["id"], turns, strict=True) if cell_turns is None]:
        raise UserError(
            f"{path}: {field} of {len(bad)} rows, ids {first_five(bad)}, is not a JSON list of strings and nulls "
            'such as ["first turn", null]; mend those cells, or download the file again'
        )
    return [cell_turns for cell_turns in turns if cell_turns is not None]


def _json_turns(cell: str) -> list[str | None] | None:
    try:
        turns = json.loads(cell, strict=False)  # a raw line break inside a string is still one string
    except (ValueError, RecursionError):
        return None
    is_turns = isinstance(turns, list) and all(turn is None or isinstance(turn, str) for turn in turns)
    return turns if is_turns else None


def _clean(turns: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(SURROGATE.sub("\ufffd", turn or "") for turn in turns)


def _same_length(fields: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Pad with absent turns: turn i of a response answers turn i of the prompt, and a field has at least one turn."""
    longest = max(1, *map(len, fields))
    return [(*turns, *[""] * (longest - len(turns))) for turns in fields]


def _labels(path: Path, table: Columns) -> list[int]:
    one_hot = np.array([table[name] for name in CLASSES], dtype=object).T  # (N, 3) of "0" and "1"
    valid = np.isin(one_hot, ["0", "1"]).all(axis=1) & ((one_hot == "1").sum(axis=1) == 1)
    if not valid.all():
        bad = [row_id for row_id, is_valid in zip(table["id"], valid, strict=True) if not is_valid]
        raise UserError(
            f"{path}: {', '.join(CLASSES)} of {len(bad)} rows, ids {first_five(bad)}, "
            "are not 0 or 1 with exactly one 1; mend those rows, or download the file again"
        )
    return (one_hot == "1").argmax(axis=1).tolist()
