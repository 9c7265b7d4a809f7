"""Marks as ordered classes: the expected mark of class probabilities, and scores for which 3 is nearer to 4 than 0."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nexttoken.data.files import whole_file
from nexttoken.metrics.probabilities import METRICS, Metric


def expected_marks(probs: np.ndarray, lowest: int = 0) -> np.ndarray:
    """The mean mark of each row, (N,), from (N, K) probabilities of the marks `lowest`, `lowest` + 1, ..."""
    return probs @ np.arange(lowest, lowest + probs.shape[1], dtype=np.float64)


def mean_absolute_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance in marks between the expected mark and the given one."""
    return float(np.abs(expected_marks(probs) - labels).mean())


def weighted_kappa(probs: np.ndarray, labels: np.ndarray) -> float:
    """Agreement of the expected mark, rounded, with the given one: 1 perfect, 0 by chance (Cohen 1968).

    Disagreements weigh by their square; two constant sides say nothing, which counts as 0.
    """
    num_classes = probs.shape[1]
    found = np.clip(np.rint(expected_marks(probs)), 0, num_classes - 1).astype(np.int64)
    table = np.zeros((num_classes, num_classes))
    np.add.at(table, (labels, found), 1)
    marks = np.arange(num_classes)
    squares = (marks[:, None] - marks) ** 2
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    disagreement = float((squares * by_chance).sum())
    return 1 - float((squares * table).sum()) / disagreement if disagreement else 0.0


MARK_METRICS = (
    *METRICS,
    Metric("mean_absolute_error", mean_absolute_error, higher_is_better=False),
    Metric("weighted_kappa", weighted_kappa, higher_is_better=True),
)


def write_marks(path: Path, ids: Sequence[str], probs: np.ndarray, lowest: int) -> None:
    """Write a CSV: id, mark (the expected one), and p<mark>, the probability of each mark; whole or not at all."""
    names = [f"p{lowest + place}" for place in range(probs.shape[1])]
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "mark", *names])
        marks = expected_marks(probs, lowest).tolist()
        rows.writerows([row_id, mark, *row] for row_id, mark, row in zip(ids, marks, probs.tolist(), strict=True))
