"""A competition of any table: its columns, label space, metric and submission stand in the configuration."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nexttoken.data.row_faults import Faults, Place, id_of
from nexttoken.errors import UserError
from nexttoken.metrics.decisions import decided
from nexttoken.metrics.named import metrics_of, refuse_unfit
from nexttoken.tasks.answer_columns import SubmissionForm, answer_columns
from nexttoken.tasks.label_space import JOINED, label_index, learnt_classes, named_classes, vote_shares
from nexttoken.tasks.row_keys import log_unseen, unseen_keys
from nexttoken.tasks.sample_file import SampleFile
from nexttoken.tasks.shards import Shards
from nexttoken.tasks.solved_examples import SolvedExamples
from nexttoken.tasks.submission import check_probs, find_ids, read_truth
from nexttoken.tasks.surrogates import without_surrogates
from nexttoken.tasks.table_keys import check_keys, refuse_taken
from nexttoken.tasks.table_rows import Row, Rows, Unpivot, columns_of, find_table, read_rows, texts_in_memory
from nexttoken.types import Baseline, Example, LabelPredictions, Metric, Split, Swap

if TYPE_CHECKING:
    import pandas as pd

ID_JOINED = "_"  # between the values of several id columns
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """The tables of `input_dir`, each row a text to classify; docs/table.md explains the keys.

    `classes` is given as a list of values, as names by value, or as a table of them; None learns it from the training
    rows. After construction it is the tuple of values, and `class_names` are the names that the prompt shows. A run
    saves the keys in `settled`, the classes learnt from the training rows: it predicts without these rows.
    """

    name: str
    input_dir: str | os.PathLike[str]
    id: str | Sequence[str]
    fields: Sequence[str]
    label: str | Sequence[str] | None = None
    votes: Sequence[str] | None = None
    classes: Any = None
    class_names: Sequence[str] | None = None
    group_by: Sequence[str] | None = None
    labels_by: str | None = None
    tags: Sequence[str] = ()
    metric: str = "log_loss"
    submission: Mapping[str, str] | None = None
    swap: Mapping[str, str] | None = None
    unpivot: Mapping[str, Any] | None = None
    examples: Any = None
    train_file: str | None = None
    test_file: str | None = None
    sample_file: str | None = None

    has_published_scores: ClassVar[bool] = False
    suffix: ClassVar[str] = ".csv"
    settled: ClassVar[Mapping[str, Any]] = {}  # of a table that learns nothing

    def __post_init__(self) -> None:
        check_keys(vars(self))
        for key in ("fields", "votes"):
            if isinstance(getattr(self, key), str):
                object.__setattr__(self, key, (getattr(self, key),))
        if (self.label is None) == (self.votes is None):
            raise UserError("the table needs either task.label, a column, or task.votes, a column for each class")
        self._unpivot, self.metrics  # noqa: B018 - they refuse other values
        refuse_taken(self._tags)
        if self.class_names is None:
            given = self.classes if self.classes is not None else self.votes or self._learnt()
            named = named_classes(given, Path(self.input_dir))
            if self.classes is None:
                object.__setattr__(self, "settled", {"classes": list(given)})
            object.__setattr__(self, "classes", tuple(named))
            object.__setattr__(self, "class_names", tuple(named.values()))
        if len(self.classes) < 2:
            raise UserError(f"the task {self.name} has {len(self.classes)} classes; expected at least two")
        if self.votes is not None and len(self.votes) != len(self.classes):
            raise UserError(f"task.votes has {len(self.votes)} columns for {len(self.classes)} classes; name one each")
        refuse_unfit(self.metrics[0], self.classes, bool(self.settled))
        answer_columns(self.submission or {}, self.classes)
        if self.swap:
            Swap.of(self)  # refuses names that are no classes
        self.solved  # noqa: B018 - it refuses other columns

    @property
    def offers(self) -> frozenset[str]:
        further = {"pairs": self.swap, "solved examples": self.solved}
        return frozenset({"labels", *(name for name, part in further.items() if part)})

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics_of(self.metric)

    @cached_property
    def solved(self) -> SolvedExamples | None:
        """The columns of the solved examples that every row brings; None where there are none."""
        of_metric = [metric.by for metric in self.metrics if metric.by]
        return SolvedExamples.of(self.examples, self.fields, self.classes, [*columns_of(self.group_by)], of_metric)

    def path(self, split: Split) -> Path:
        """The file of the training or test rows."""
        name = self.train_file if split == "train" else self.test_file
        return find_table(Path(self.input_dir), name, split, f"{split}_file")

    def read(self, split: Split) -> list[Example]:
        """Return one example per row.

        Raises: UserError naming the first five faulty rows by file and line, and where the ids of the test are not
        those of the sample submission.
        """
        path = self.path(split)
        self._form  # noqa: B018 - it refuses a sample with other columns
        examples = self._examples(self._rows(path, split), split, path)
        if split == "test" and (sample_ids := [*self._sample.ids()]):
            ids, sample = [example.id for example in examples], self._sample.path
            find_ids(str(sample), sample_ids, path.name, ids)
            if sample_ids != ids:
                log.info("%s orders its ids differently: the order of %s is followed", sample, path.name)
        return examples

    def in_shards(self, size: int) -> Shards:
        """The test rows, `size` at a time."""
        path, decide = self.path("test"), partial(decided, self.metrics[0])
        rows, make = partial(self._rows, path, "test"), partial(self._examples, split="test", source=path)
        return Shards(path, size, rows, make, self._form, self._sample, decide)

    def parse(self, frame: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> list[Example]:
        """Return the examples of test rows in memory. Raises UserError naming faulty rows by their number."""
        rows = texts_in_memory(frame, self._sources("test"))
        return self._examples(self._unpivot(rows) if self._unpivot else rows, "test", "the table")

    def truth(self) -> Mapping[str, tuple[float, ...]]:
        return read_truth(Path(self.input_dir), self.classes)

    def group_text(self, example: Example) -> str:
        known = {name: turns[0] for name, turns in example.fields.items()} | {**example.tags}
        names = self.fields if self.group_by is None else [*columns_of(self.group_by)]
        if not known.keys() >= {*names}:
            names = self.fields  # test rows may lack a column that is not shown
        return "\n".join(known[name] for name in names)

    def baselines(self) -> tuple[Baseline, ...]:
        from nexttoken.tasks.baselines.choice import choose_baselines

        return choose_baselines(self.fields, len(self.classes), Swap.of(self) if self.swap else None, self.solved)

    def write(self, predictions: LabelPredictions, path: Path) -> None:
        """Write the submission in the row order of the test file and the column order of the sample submission."""
        check_probs("the predictions", predictions.ids, predictions.probs, self.classes)
        ids = [example.id for example in self.read("test")]
        probs = predictions.probs[find_ids("the predictions", predictions.ids, self.path("test").name, ids)]
        self._form.write(ids, probs, path, decided(self.metrics[0], probs, predictions.threshold))

    def check(self, path: Path) -> str:
        """Return the number of rows, in words. Raises UserError for a file that does not fit the test rows."""
        ids = [example.id for example in self.read("test")]
        self._form.check(path, self.path("test").name, ids)
        return f"{len(ids):,} rows with the ids of {self.path('test')} in order"

    def results(self, predictions: LabelPredictions) -> list[dict[str, Any]]:
        return []  # the submission says it all

    def unread(self) -> list[str]:
        """Columns of the training file that the rows are not made from."""
        first = next((row for _, row in read_rows(self.path("train"), []) if isinstance(row, dict)), {})
        return [name for name in first if name not in self._sources("train")]

    @cached_property
    def _unpivot(self) -> Unpivot | None:
        return Unpivot.of(self.unpivot)

    @cached_property
    def _tags(self) -> list[str]:
        hidden = [name for name in columns_of(self.group_by) if name not in self.fields]
        by = [metric.by for metric in self.metrics if metric.by]
        return list(dict.fromkeys(columns_of(self.tags, by, hidden, self.labels_by)))

    def _sources(self, split: Split) -> list[str]:
        """The columns of the file that the rows are made from."""
        of_train = (self._tags, self.label, self.votes) if split == "train" else ()
        columns = list(dict.fromkeys(columns_of(self.id, self.fields, self.labels_by, *of_train)))
        return self._unpivot.sources(columns) if self._unpivot else columns

    def _rows(self, path: Path, split: Split) -> Rows:
        rows = read_rows(path, self._sources(split))
        return self._unpivot(rows) if self._unpivot else rows

    def _examples(self, rows: Rows, split: Split, source: Path | str) -> list[Example]:
        faults, unseen, indices = Faults(), Counter[str](), {name: place for place, name in enumerate(self.classes)}
        seen = set(columns_of(self.id, self.fields, self._tags, self.label, self.votes))

        def example(row: Row, place: Place) -> Example | None:
            if self._unpivot and split == "train" and self.label and not self._label_of(row).strip():
                return None  # an answer that was not judged
            unseen.update(unseen_keys(row, seen))
            row_id = ID_JOINED.join(str(id_of(row, [name], place)) for name in columns_of(self.id))
            faults.claim_id(row_id, place)
            tags = {"file": place.file} | {name: row[name] for name in self._tags if name in row}
            made = Example(row_id, {name: (row[name],) for name in self.fields}, tags=tags)
            return self._labelled(made, row, indices) if split == "train" else made

        examples = [made for made in faults.sound_rows(rows, example) if made is not None]
        faults.refuse("mend these rows, or download the file again", source)
        if not examples:
            raise UserError(f"{source} has no row with a label; expected rows of {', '.join(self.fields)}")
        log_unseen(unseen)
        return without_surrogates(examples)

    def _labelled(self, example: Example, row: Row, indices: Mapping[str, int]) -> Example:
        if self.votes is not None:
            shares = vote_shares(row, list(self.votes))
            return replace(example, label=int(np.argmax(shares)), votes=() if 1.0 in shares else shares)
        return replace(example, label=label_index(self._label_of(row), indices, str(self.label)))

    def _label_of(self, row: Row) -> str:
        """The row's label; of several columns, "" where one of them is empty."""
        cells = [row[name] for name in columns_of(self.label)]
        return JOINED.join(cells) if all(cell.strip() for cell in cells) else ""

    def _learnt(self) -> list[str]:
        """The labels of the training rows. Raises UserError where there is none."""
        labels = [self._label_of(row) for _, row in self._rows(self.path("train"), "train") if isinstance(row, dict)]
        if found := learnt_classes(label for label in labels if label.strip()):
            return found
        raise UserError(f"{self.path('train')}: the label {self.label} is empty in every row; correct task.label")

    @cached_property
    def _form(self) -> SubmissionForm:
        sample, id_name = self._sample, ID_JOINED.join(columns_of(self.id))
        return SubmissionForm.of(sample.header, sample.path, self.submission, self.classes, id_name)

    @cached_property
    def _sample(self) -> SampleFile:
        return SampleFile.find(Path(self.input_dir), self.sample_file)
