"""The task's metric on the dev rows, by which checkpoints are chosen where it can be computed on them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nexttoken.engine.label_scores import UNKNOWN
from nexttoken.metrics.decisions import at_threshold, choose_threshold, has_threshold
from nexttoken.metrics.probabilities import log_loss, softmax
from nexttoken.metrics.scaling import fit_temperature, soften
from nexttoken.types import Example, Metric

DevRow = tuple[str, int, np.ndarray]  # id, label, and scores (K,), minus infinity for absent options


@dataclass(frozen=True)
class DevScore:
    """A checkpoint's scores on the dev rows: log loss, and the task's metric at the best threshold."""

    loss: float = float("inf")
    score: float = float("nan")  # also where the metric is log loss
    threshold: float | None = None
    softened: float | None = None  # the log loss at the best temperature, if checkpoints are chosen by it

    @property
    def compared_loss(self) -> float:
        return self.loss if self.softened is None else self.softened

    @property
    def logged(self) -> dict[str, float]:
        """The numbers for the terminal and the loggers."""
        return {"dev_log_loss": self.loss} | ({} if math.isnan(self.score) else {"dev_metric": self.score})


@dataclass(frozen=True)
class DevMetric:
    """Scores dev rows by `metric`, None for log loss; `tags` are the values by id of the tag that it needs.

    With `softens`, log losses are compared after a temperature fitted on these rows: confidence is corrected after
    training, and only the order of the classes has to be learnt (Berta et al. 2025, arXiv 2501.19195).
    """

    metric: Metric | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    softens: bool = False

    @classmethod
    def of(cls, task: Any, dev: Sequence[Example], softens: bool = False) -> "DevMetric":
        """The metric of a task; of open answers it is log loss."""
        first = next(iter(getattr(task, "metrics", ())), None)
        if first is None or first.name == "log_loss":
            return cls(softens=softens)
        return cls(first, {example.id: example.tags.get(first.by, "") for example in dev}, softens)

    @property
    def needs_rows(self) -> bool:
        """True where the mean loss alone does not decide."""
        return self.metric is not None or self.softens

    @property
    def key(self) -> str:
        """Its name in metrics.json and curve.csv; "" for log loss."""
        return f"dev_{self.metric.name}" if self.metric else ""

    def score(self, loss: float, rows: Sequence[DevRow]) -> DevScore:
        """The scores of rows as the model was shown them, a row of a pair in each of its orders.

        Where rows have options of their own, only a mean over rows has a meaning: log loss then stands alone.
        """
        if not self.needs_rows or not rows:
            return DevScore(loss)
        ids, labels, scores = zip(*sorted(rows, key=lambda row: row[:2]), strict=True)
        width = max(map(len, scores))
        table = np.array([np.pad(row, (0, width - len(row)), constant_values=-np.inf) for row in scores], np.float64)
        probs, targets = softmax(table), np.array(labels)
        softened = log_loss(soften(probs, fit_temperature(probs, targets)), targets) if self.softens else None
        if self.metric is None:
            return DevScore(loss, softened=softened)
        if np.isinf(table).any() and not np.ndim(self.metric.function(probs, targets)):
            return DevScore(loss, softened=softened)
        threshold = choose_threshold(self.metric, probs, targets) if has_threshold(self.metric, width) else None
        decided = probs if threshold is None else at_threshold(probs, threshold)
        score = self.metric.score(decided, targets, [self.tags.get(one, "") for one in ids])
        return DevScore(loss, score, threshold, softened)

    def is_better(self, new: DevScore, old: DevScore) -> bool:
        """True where the metric is better; of equal ones, or without a metric, where the log loss is."""
        if self.metric is not None:
            for one, other, is_better in ((new, old, True), (old, new, False)):
                if self.metric.is_better(one.score, other.score):
                    return is_better
        return new.compared_loss < old.compared_loss

    def measured(self, found: DevScore) -> dict[str, Any]:
        """The scores of the chosen checkpoint for metrics.json; null where the metric cannot be computed."""
        own = {self.key: None if np.isnan(found.score) else found.score} if self.metric else {}
        more = {"threshold": found.threshold, "dev_log_loss_softened": found.softened}
        return {"dev_log_loss": found.loss} | own | {key: value for key, value in more.items() if value is not None}


class DevTotals:
    """Sums over the dev rows of this process so far; `rows` only where they are needed."""

    def __init__(self, keeps_rows: bool = False) -> None:
        self.loss, self.num_targets = torch.zeros(()), torch.zeros(())
        self.keeps_rows = keeps_rows
        self.rows: list[DevRow] = []

    def add(self, loss: Tensor, num_targets: Tensor, batch: Any, scores: Tensor | None) -> None:
        """Count in a batch: its summed loss, its targets, and its rows' scores (N, K)."""
        self.loss, self.num_targets = self.loss.to(loss) + loss, self.num_targets.to(num_targets) + num_targets
        if self.keeps_rows and scores is not None:
            rows = zip(batch.ids, batch.labels.tolist(), scores.detach().cpu().numpy(), strict=True)
            self.rows += [row for row in rows if row[1] != UNKNOWN]


LOG_LOSS = DevMetric()
