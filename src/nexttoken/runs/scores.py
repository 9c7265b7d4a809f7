"""A fold's scores, the references that they stand beside, and what was scored: what metrics.json holds of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.metrics.probabilities import (
    log_loss,
    prior_log_loss,
    uniform_log_loss,
)
from nexttoken.settings import Settings
from nexttoken.types import Example, LabelPredictions, Task

PUBLISHED_ROWS = 50_000  # the competition's own training file has about 57 thousand rows and no known truth


def labels_of(examples: Sequence[Example]) -> np.ndarray:
    return np.array([example.label for example in examples], dtype=np.int64)


def score(task: Task, predictions: LabelPredictions, examples: Sequence[Example]) -> dict[str, float]:
    """Every metric of the task, and the share of rows in each yes-or-no column of the predictions."""
    labels = labels_of(examples)
    shares = {f"share_{name}": float(c.mean()) for name, c in predictions.columns.items() if c.dtype == bool}
    return {metric.name: metric.score(predictions.probs, labels) for metric in task.metrics} | shares


def score_references(task: Task, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, float | None]:
    """What the model has to beat, fitted on the rows `seen` in training and scored on the same held-out rows.

    `chance_<metric>` and `baseline_<metric>` for each of the task's metrics; the chance of log loss is
    `uniform_log_loss`.
    """
    labels, num_classes, truth = labels_of(held_out), len(task.classes), task.truth()
    num_options = [example.num_options or num_classes for example in held_out]
    known = all(example.id in truth for example in held_out)
    baseline = task.baseline().fit(seen).predict(held_out)
    chances = {metric.name: metric.chance_level(num_options) for metric in task.metrics if metric.name != "log_loss"}
    return {
        "uniform_log_loss": uniform_log_loss(num_options),
        "prior_log_loss": prior_log_loss(labels_of(seen), labels, num_classes, num_options),
        "best_possible_log_loss": log_loss(np.array([truth[e.id] for e in held_out]), labels) if known else None,
        **{f"chance_{name}": level for name, level in chances.items() if level is not None},
        **{f"baseline_{metric.name}": metric.score(baseline, labels) for metric in task.metrics},
    }


def describe(settings: Settings, task: Task, num_rows: int, num_held_out: int) -> dict[str, Any]:
    """What was scored; `num_rows` are those of all folds, `num_held_out` those of this one."""
    return {
        "task": task.name,
        "dataset": Path(settings.input_dir).resolve().name,
        "has_published_scores": task.has_published_scores,
        "is_published_data": task.has_published_scores and num_rows > PUBLISHED_ROWS and not task.truth(),
        "fold": settings.fold,
        "trained": settings.trainer.max_epochs > 0,
        "num_examples": num_held_out,
    }
