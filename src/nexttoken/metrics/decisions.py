"""Scores of decisions, one label a row, and the threshold from which on the second of two classes is decided for."""

from functools import partial

import numpy as np

from nexttoken.metrics.probabilities import METRICS, checked
from nexttoken.types import Metric

AVERAGES = ("macro", "micro", "binary")
MAX_THRESHOLDS = 500  # that are tried, evenly spread over the rows


def expected_marks(probs: np.ndarray, lowest: int = 0) -> np.ndarray:
    """The mean mark of each row, (N,), from (N, K) probabilities of the marks `lowest`, `lowest` + 1, ..."""
    return probs @ np.arange(lowest, lowest + probs.shape[1], dtype=np.float64)


def absolute_errors(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance in marks between the expected mark and the given one, (N,)."""
    return np.abs(expected_marks(probs) - labels)


def weighted_kappa(probs: np.ndarray, labels: np.ndarray) -> float:
    """Agreement of the expected mark, rounded, with the given one: 1 perfect, 0 by chance (Cohen 1968).

    Disagreements weigh by their square; where given and expected marks are all the same, it is 0.
    """
    num_classes = probs.shape[1]
    found = np.clip(np.rint(expected_marks(probs)), 0, num_classes - 1).astype(np.int64)
    table = np.zeros((num_classes, num_classes))
    np.add.at(table, (labels, found), 1)
    marks = np.arange(num_classes)
    squares = (marks[:, None] - marks) ** 2
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(1, len(labels))
    disagreement = float((squares * by_chance).sum())
    return 1 - float((squares * table).sum()) / disagreement if disagreement else 0.0


ABSOLUTE_ERROR = Metric("mean_absolute_error", absolute_errors, higher_is_better=False)
WEIGHTED_KAPPA = Metric("weighted_kappa", weighted_kappa, higher_is_better=True, chance=0.0)
MARK_METRICS = (*METRICS, ABSOLUTE_ERROR, WEIGHTED_KAPPA)


def f_beta(probs: np.ndarray, labels: np.ndarray, beta: float = 1.0, average: str = "macro") -> float:
    """F-score of the most probable class of each row, recall weighing `beta` times as much as precision.

    `macro` is the mean over the classes that labels or decisions have, `micro` counts all rows together, `binary` is
    that of the second class alone, with 0 where nothing is to be found and nothing was.
    """
    probs, labels = checked(probs, labels)
    found, number = probs.argmax(axis=1), probs.shape[1]
    hits = np.bincount(labels[found == labels], minlength=number)
    counts = np.stack([hits, np.bincount(labels, minlength=number), np.bincount(found, minlength=number)])  # (3, K)
    if average == "micro":
        counts = counts.sum(axis=1, keepdims=True)
    hits, labelled, decided_for = counts[:, 1:2] if average == "binary" else counts[:, counts.any(axis=0)]
    weights = np.maximum(beta**2 * labelled + decided_for, 1e-300)  # 0 only where there are no hits either
    return float(((1 + beta**2) * hits / weights).mean())


def f_score(name: str, beta: float, average: str) -> Metric:
    """The F-score of that name, such as f1(macro)."""
    heading = f"F{beta:g} ({average})"
    return Metric(name, partial(f_beta, beta=beta, average=average), True, heading=heading, needs="labels")


def has_threshold(metric: Metric, num_classes: int) -> bool:
    """True where the metric depends on a threshold that is to be chosen: an F-score of two classes."""
    return num_classes == 2 and getattr(metric.function, "func", None) is f_beta


def at_threshold(probs: np.ndarray, threshold: float) -> np.ndarray:
    """Probabilities (N, 2) whose second class is the most probable one where it had more than `threshold` before.

    The odds are divided by those of the threshold: the order of the rows stays, and 0.5 changes nothing.
    """
    if threshold == 0.5:
        return probs
    weights = np.asarray(probs, dtype=np.float64) * [threshold, 1 - threshold]
    return weights / weights.sum(axis=1, keepdims=True)


def decided(metric: Metric, probs: np.ndarray, threshold: float) -> np.ndarray:
    """Probabilities (N, K) whose most probable class is the one that the metric decides for.

    Of two classes with an F-score that follows from the threshold, with a weighted kappa it is the rounded mean class.
    """
    if has_threshold(metric, probs.shape[1]):
        return at_threshold(probs, threshold)
    if metric.function is weighted_kappa:
        return (probs + np.eye(probs.shape[1])[np.rint(expected_marks(probs)).astype(np.int64)]) / 2
    return probs


def choose_threshold(metric: Metric, probs: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the best score on these rows; of equal ones the nearest to 0.5.

    Between two rows with neighbouring probabilities all thresholds are the same: the middle is tried. Choose it on
    other rows than those that are scored.
    """
    seen = np.unique([0.0, *np.asarray(probs, dtype=np.float64)[:, 1], 1.0])
    middles = (seen[1:] + seen[:-1]) / 2
    places = np.linspace(0, len(middles) - 1, min(len(middles), MAX_THRESHOLDS)).round().astype(np.int64)
    tried = sorted({0.5, *middles[places].tolist()}, key=lambda threshold: abs(threshold - 0.5))
    best, best_score = 0.5, float("nan")
    for threshold in tried:
        score = metric.score(at_threshold(probs, threshold), labels)
        if metric.is_better(score, best_score):
            best, best_score = threshold, score
    return best
