"""The metrics that a finished fold was scored by, the task's own first, as metrics.json and config.yaml name them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.targets import load_class
from nexttoken.errors import UserError
from nexttoken.metrics.decisions import MARK_METRICS
from nexttoken.metrics.named import metric_named
from nexttoken.metrics.probabilities import METRICS
from nexttoken.metrics.rankings import QUIZ_METRICS
from nexttoken.runs.folder import FoldFolder
from nexttoken.types import Metric

LOG_LOSS = METRICS[0]
KNOWN_METRICS = tuple({metric.name: metric for metric in (*QUIZ_METRICS, *MARK_METRICS)}.values())


def metrics_of_fold(folder: Path, saved: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics in `saved`, which is metrics.json; the one that it names as the task's `metric` stands first.

    They are those of the class of the task in config.yaml, or the known ones where it has none of its own.
    """
    known = {metric.name: metric for metric in _of_class(folder)}
    first = _own(saved, known)
    return (first, *(metric for name, metric in known.items() if name in saved and name != first.name))


def own_metric(saved: Mapping[str, Any]) -> Metric:
    """The task's metric that metrics.json names; log loss where it names none that is known."""
    return _own(saved, {metric.name: metric for metric in KNOWN_METRICS})


def sweep_loss(saved: Mapping[str, Any]) -> float:
    """The loss that a sweeper minimises: on the dev rows, without any on the held-out rows, NaN without either."""
    return saved.get("dev_log_loss", saved.get("log_loss", math.nan))


def _own(saved: Mapping[str, Any], known: Mapping[str, Metric]) -> Metric:
    name = saved.get("metric", LOG_LOSS.name)
    try:
        return known[name] if name in known else metric_named(name)
    except UserError:
        return LOG_LOSS  # of a class that is not there any more


def _of_class(folder: Path) -> Sequence[Metric]:
    fold = FoldFolder(folder)
    task = fold.config().get("task") if fold.config_path.exists() else None
    target = str(task.get("_target_", "")) if isinstance(task, Mapping) else ""
    try:
        metrics = load_class(target, "task").metrics
    except (UserError, ImportError, AttributeError):
        metrics = KNOWN_METRICS
    return metrics if isinstance(metrics, Sequence) else KNOWN_METRICS  # a property depends on the configuration
