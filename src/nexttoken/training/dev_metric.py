"""The task's metric on the dev rows, by which checkpoints are chosen where it can be computed on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nexttoken.metrics.decisions import at_threshold, choose_threshold, has_threshold
from nexttoken.types import Example, Metric

DevRow = tuple[str, int, np.ndarray]  # id, label, and scores (K,), minus infinity for absent options


@dataclass(frozen=True)
class DevScore:
    """A checkpoint's scores on the dev rows: log loss, and the task's metric at the best threshold."""

    loss: float = float("inf")
    score: float = float("nan")  # also where the metric is log loss
    threshold: float | None = None


@dataclass(frozen=True)
class DevMetric:
    """Scores dev rows by `metric`, None for log loss; `tags` are the values by id of the tag that it needs."""

    metric: Metric | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Any, dev: Sequence[Example]) -> "DevMetric":
        """The metric of a task; of open answers it is log loss."""
        first = next(iter(getattr(task, "metrics", ())), None)
        if first is None or first.name == "log_loss":
            return cls()
        return cls(first, {example.id: example.tags.get(first.by, "") for example in dev})

    @property
    def key(self) -> str:
        """Its name in metrics.json and curve.csv; "" for log loss."""
        return f"dev_{self.metric.name}" if self.metric else ""

    def score(self, loss: float, rows: Sequence[DevRow]) -> DevScore:
        """The scores of rows as the model was shown them, a row of a pair in each of its orders.

        Where rows have options of their own, only a mean over rows has a meaning: log loss then stands alone.
        """
        if self.metric is None or not rows:
            return DevScore(loss)
        ids, labels, scores = zip(*sorted(rows, key=lambda row: row[:2]), strict=True)
        width = max(map(len, scores))
        table = np.array([np.pad(row, (0, width - len(row)), constant_values=-np.inf) for row in scores], np.float64)
        weights = np.exp(table - table.max(axis=1, keepdims=True))
        probs, targets = weights / weights.sum(axis=1, keepdims=True), np.array(labels)
        if np.isinf(table).any() and not np.ndim(self.metric.function(probs, targets)):
            return DevScore(loss)
        threshold = choose_threshold(self.metric, probs, targets) if has_threshold(self.metric, width) else None
        decided = probs if threshold is None else at_threshold(probs, threshold)
        return DevScore(loss, self.metric.score(decided, targets, [self.tags.get(one, "") for one in ids]), threshold)

    def is_better(self, new: DevScore, old: DevScore) -> bool:
        """True where the metric is better; of equal ones, or without a metric, where the log loss is."""
        if self.metric is not None:
            for one, other, is_better in ((new, old, True), (old, new, False)):
                if self.metric.is_better(one.score, other.score):
                    return is_better
        return new.loss < old.loss

    def measured(self, found: DevScore) -> dict[str, Any]:
        """The scores of the chosen checkpoint for metrics.json; null where the metric cannot be computed."""
        own = {self.key: None if np.isnan(found.score) else found.score} if self.metric else {}
        return {"dev_log_loss": found.loss} | own | ({} if found.threshold is None else {"threshold": found.threshold})


LOG_LOSS = DevMetric()
