"""A run's out-of-fold rows as arrays, with what was decided for each, and numbers of them with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nexttoken.metrics.decisions import decided
from nexttoken.metrics.intervals import Interval, resampled_sums
from nexttoken.metrics.probabilities import log_losses
from nexttoken.runs.scored_runs import Run, classes_of, probabilities
from nexttoken.types import Metric

NUM_RESAMPLES = 1_000  # one draw of groups for every number of a table


@dataclass(frozen=True)
class Outcome:
    """The N rows of a run of K classes. `decisions` (N,) are the classes that the task's metric counts as answers.

    `probs` is (N, K), all others are (N,): `losses` in nats, `groups` the names of groups of near-duplicates.
    """

    names: Sequence[str]
    ids: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    probs: np.ndarray
    decisions: np.ndarray
    losses: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, run: Run, groups: np.ndarray) -> "Outcome":
        oof, names = run.oof, classes_of(run.folds[0].oof)
        probs, labels = probabilities(oof), oof["label"].to_numpy()
        decisions = decided(run.metric, run.scored(run.metric).probs, 0.5).argmax(axis=1)
        losses = log_losses(probs, labels)
        return cls(
            names, oof["id"].to_numpy(), oof["fold"].to_numpy(), labels, probs, decisions, losses, np.asarray(groups)
        )

    @property
    def right(self) -> np.ndarray:
        """1 where the decision is the label, else 0, (N,) float64."""
        return (self.decisions == self.labels).astype(np.float64)

    def values_of(self, metric: Metric) -> np.ndarray | None:
        """The score of each row, (N,), where the metric is their mean, else None."""
        values = np.asarray(np.nan if metric.by else metric.function(self.probs, self.labels))
        return values if values.ndim else None


@dataclass(frozen=True)
class Measured:
    """A number, NaN where it is not known, and its 95 % interval over groups of rows, None without one."""

    value: float
    interval: Interval | None = None

    @property
    def is_sure(self) -> bool:
        """True where the interval leaves 0 out."""
        return self.interval is not None and 0 not in self.interval


def measured_sums(
    sums: Sequence[np.ndarray], groups: np.ndarray, formula: Callable[..., Sequence[np.ndarray]]
) -> list[list[Measured]]:
    """The numbers that `formula` makes of sums over rows, each with its interval.

    `sums` are tables (N, V) whose columns are summed. `formula` takes the sums of each table, (..., V), and returns one
    array (..., V) for each wanted number. The result is a list for each of these, with one number for each column.
    """
    sizes = np.cumsum([part.shape[1] for part in sums])[:-1]
    every = np.concatenate(sums, axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = formula(*np.split(every.sum(axis=0), sizes))
        if len(np.unique(groups)) < 2:
            return [[Measured(float(value)) for value in own] for own in values]
        draws = formula(*np.split(resampled_sums(every, groups, NUM_RESAMPLES), sizes, axis=1))
    return [[*map(_measured, own, of_own.T)] for own, of_own in zip(values, draws, strict=True)]


def _measured(value: Any, draws: np.ndarray) -> Measured:
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(known) < NUM_RESAMPLES / 2:
        return Measured(float(value))
    low, high = np.quantile(known, [0.025, 0.975])
    return Measured(float(value), Interval(float(low), float(high)))
