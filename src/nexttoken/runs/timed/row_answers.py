"""Class probabilities of rows as they come in, from several folds and runs, and their mean at any moment."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from nexttoken.data.csv_tables import read_columns
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import prior_probs
from nexttoken.runs.blend import Blend
from nexttoken.runs.fold_rows import labels_of
from nexttoken.runs.load import LoadedBlend
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.loaded_cascade import LoadedCascade
from nexttoken.types import Example, LabelPredictions

Source = tuple[str, int | str]  # a run's folder and the number of one of its folds


@dataclass
class RowAnswers:
    """The answers so far to N rows of K classes: each source's own (N, K), NaN where it has none yet.

    A row without an answer has its row of `fallback` (N, K): the prior, or a cheaper predictor's probabilities.
    """

    run: LoadedRun
    ids: tuple[str, ...]
    fallback: np.ndarray
    tables: dict[Source, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, run: LoadedRun, examples: Sequence[Example]) -> "RowAnswers":
        """No answers yet: every row has the class shares of the rows that the run was trained on."""
        classes = run.parts.task.classes
        prior = prior_probs(
            learnt_labels(run), len(classes), [example.num_options or len(classes) for example in examples]
        )
        return cls(run, tuple(example.id for example in examples), prior)

    def put(self, source: Source, rows: np.ndarray, probs: np.ndarray) -> None:
        """Set the answers (n, K) of a source to the rows of these numbers (n,), in place of its earlier ones."""
        if source not in self.tables:
            self.tables[source] = np.full(self.fallback.shape, np.nan)
        self.tables[source][rows] = probs

    def known(self, sources: Sequence[Source]) -> np.ndarray:
        """Mask (N,) of the rows that all of these sources have answered."""
        known = np.array([~np.isnan(self._of(source)).any(axis=1) for source in sources])
        return np.logical_and.reduce(known)

    @property
    def probs(self) -> np.ndarray:
        """The mean of the answers, as the run averages its folds and a blend its members, (N, K)."""
        found = self.of_run(self.run)
        return np.where(np.isnan(found), self.fallback, found)

    @property
    def has_answer(self) -> np.ndarray:
        """Mask (N,) of the rows that any source has answered."""
        return ~np.isnan(self.of_run(self.run)).any(axis=1)

    @property
    def predictions(self) -> LabelPredictions:
        return LabelPredictions(self.ids, self.probs, {"seconds": np.zeros(len(self.ids))}, self.run.threshold)

    def of_run(self, run: LoadedRun) -> np.ndarray:
        """The mean (N, K) of what this run, or blend, has answered; NaN where that is nothing."""
        if isinstance(run, LoadedBlend):
            members = [
                self.of_run(member) if isinstance(member, LoadedRun) else self._of(source_of(run, place))
                for place, member in enumerate(run.members)
            ]
            return _blended(run, np.array(members))
        if isinstance(run, LoadedCascade):
            small, larger = self.of_run(run.small), self.of_run(run.larger)
            rows = ~np.isnan(small).any(axis=1) & ~np.isnan(larger).any(axis=1)
            small[rows] = run.cascade.combine(small[rows], larger[rows])
            return small
        tables = np.array([self._of(source_of(run, fold.number)) for fold in run.folds])
        known = ~np.isnan(tables)
        if known.all():
            return tables.mean(axis=0)
        with np.errstate(invalid="ignore"):
            return np.where(known, tables, 0).sum(axis=0) / known.sum(axis=0)

    def _of(self, source: Source) -> np.ndarray:
        return self.tables.get(source, np.full(self.fallback.shape, np.nan))


def learnt_labels(run: LoadedRun) -> Sequence[int] | np.ndarray:
    """The labels of the rows that the folds held out, of a final model those of the training file, if it is there.

    Raises UserError where an oof.csv cannot be read.
    """
    if not run.folds[0].is_final:
        return [int(one) for fold in run.folds for one in read_columns(fold.path / "oof.csv", ["id", "label"])["label"]]
    with suppress(UserError):
        return labels_of(run.parts.task.read("train"))
    return []


def source_of(run: LoadedRun, number: int | str) -> Source:
    return str(run.path), number


def _blended(run: LoadedBlend, tables: np.ndarray) -> np.ndarray:
    """The blend (N, K) of those members (M, N, K) that have answered a row, by their weights among each other."""
    known = ~np.isnan(tables).any(axis=2)  # (M, N)
    result = np.full(tables.shape[1:], np.nan)
    for pattern in np.unique(known.T, axis=0):
        if pattern.any():
            rows = (pattern == known.T).all(axis=1)
            probs = among(run.blend, pattern)(list(tables[pattern][:, rows]))
            result[rows] = run.calibration.scaling(probs) if run.calibration else probs
    return result


def among(blend: Blend, pattern: np.ndarray) -> Blend:
    """The blend of those of its members that the mask `pattern` (M,) names."""
    members = [member for member, is_known in zip(blend.members, pattern, strict=True) if is_known]
    total = 1.0 if pattern.all() else sum(member.weight for member in members)
    return replace(blend, members=tuple(replace(member, weight=member.weight / total) for member in members))
