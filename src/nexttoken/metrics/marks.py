"""Marks as ordered classes: the expected mark of class probabilities, and scores for which 3 is nearer to 4 than 0."""

import numpy as np

from nexttoken.metrics.probabilities import METRICS
from nexttoken.types import Metric


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
