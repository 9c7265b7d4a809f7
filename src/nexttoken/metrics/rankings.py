"""Scores of orders: how far up the label stands among a row's classes, and how well scores part rows of two classes."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from nexttoken.metrics.probabilities import METRICS, checked, options_of
from nexttoken.types import Metric


def ranks(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place of each label among its row's probabilities, (N,), from 1; of equal ones the first class is first."""
    probs, labels = checked(probs, labels)
    own = probs[np.arange(len(labels)), labels][:, None]
    is_before = (probs > own) | ((probs == own) & (np.arange(probs.shape[1]) < labels[:, None]))
    return 1 + is_before.sum(axis=1)


def reciprocal_ranks(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One divided by the label's rank, (N,)."""
    return 1 / ranks(probs, labels)


def average_precisions(probs: np.ndarray, labels: np.ndarray, at: int = 3) -> np.ndarray:
    """Average precision among the first `at` classes, (N,): 1/rank of the one label, 0 where it is not among them."""
    places = ranks(probs, labels)
    return (places <= at) / places


def map_at_3(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `average_precisions`, the score of Kaggle's LLM Science Exam."""
    return float(average_precisions(probs, labels).mean())


def chance_map(num_options: int | Sequence[int] | np.ndarray, at: int = 3) -> float:
    """The expected MAP of an order by chance: mean of (1 + 1/2 + ... + 1/at)/n, without the ranks beyond n."""
    counts = options_of(num_options)
    worth = np.cumsum(1 / np.arange(1, 1 + max(1, int(min(at, counts.max())))))
    return float((worth[np.minimum(counts, len(worth)).astype(np.int64) - 1] / counts).mean())


def chance_reciprocal_rank(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The expected reciprocal rank of an order by chance: MAP over all ranks."""
    return chance_map(num_options, int(options_of(num_options).max()))


def area_under_curve(probs: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; NaN where the rows have one class only.

    Of two classes it is the share of pairs of rows, one of each class, in which the second class's row has the higher
    probability of it, ties counting half (Hanley and McNeil 1982). Of more classes it is the mean over the classes
    that the labels have, each against the rest, as scikit-learn's `multi_class="ovr"`.
    """
    probs, labels = checked(probs, labels)
    if len(known := np.unique(labels)) < 2:
        return float("nan")
    from scipy.stats import rankdata  # scikit-learn's checks of its arguments take ten times as long as the score

    positives = [1] if probs.shape[1] == 2 else known.tolist()
    places, own = rankdata(probs[:, positives], axis=0), labels[:, None] == positives
    numbers = own.sum(axis=0)
    pairs = (places * own).sum(axis=0) - numbers * (numbers + 1) / 2
    return float((pairs / (numbers * (len(labels) - numbers))).mean())


def map_at(number: int) -> Metric:
    """MAP among the first `number` classes."""
    chance: Callable[[np.ndarray], float] = partial(chance_map, at=number)
    function = partial(average_precisions, at=number)
    return Metric(f"map_at_{number}", function, True, chance, f"MAP@{number}", needs="ranking")


MEAN_RECIPROCAL_RANK = Metric("mrr", reciprocal_ranks, True, chance_reciprocal_rank, "MRR", needs="ranking")
AREA_UNDER_CURVE = Metric("auc", area_under_curve, True, 0.5, "AUC", needs="ranking")
QUIZ_METRICS = (*METRICS, map_at(3))
