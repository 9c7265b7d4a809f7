"""A run's out-of-fold rows as arrays, with what was decided for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.metrics.decisions import decided
from nexttoken.metrics.probabilities import log_losses
from nexttoken.runs.scored_runs import Run, classes_of, probabilities
from nexttoken.types import Metric


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
