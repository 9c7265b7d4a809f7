"""Scores of class probabilities (N, K) against labels (N,), and the scores of a guess."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.types import Metric


@dataclass(frozen=True)
class ReliabilityBin:
    """Examples of similar confidence: how sure the predictions were, and how often they were right."""

    confidence: float
    accuracy: float
    count: int


def log_losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-probability of each label in nats, (N,), clipped at float64's epsilon like scikit-learn's."""
    probs, labels = _checked(probs, labels)
    eps = np.finfo(np.float64).eps
    return -np.log(np.clip(probs[np.arange(len(labels)), labels], eps, 1 - eps))


def log_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probs, labels).mean())


def correct(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the most probable class (the first of equals) is the label, else 0, (N,)."""
    probs, labels = _checked(probs, labels)
    return (probs.argmax(axis=1) == labels).astype(np.float64)


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `correct`."""
    return float(correct(probs, labels).mean())


def precisions_at_3(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision at 3, (N,): 1, 1/2 or 1/3 for a label ranked first, second or third, else 0.

    The score of Kaggle's LLM Science Exam. Of equal probabilities the first class ranks first.
    """
    probs, labels = _checked(probs, labels)
    ranked = np.argsort(-probs, axis=1, kind="stable")[:, :3]
    worth = 1 / np.arange(1, ranked.shape[1] + 1)
    return ((ranked == labels[:, None]) * worth).sum(axis=1)


def map_at_3(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `precisions_at_3`."""
    return float(precisions_at_3(probs, labels).mean())


def uniform_log_loss(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The log loss of knowing nothing: ln K, or the mean of ln n over the rows' numbers of options (N,)."""
    return float(np.log(_options(num_options)).mean())


def chance_accuracy(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The expected accuracy of a uniform guess: 1/K, or the mean of 1/n over the rows' numbers of options (N,)."""
    return float((1 / _options(num_options)).mean())


def chance_map_at_3(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The expected `map_at_3` of a ranking by chance: mean of (1 + 1/2 + 1/3)/n, without the ranks beyond n."""
    counts = _options(num_options)
    return float(sum((counts >= rank) / rank / counts for rank in (1, 2, 3)).mean())  # type: ignore[union-attr]


def prior_log_loss(
    train_labels: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    num_options: Sequence[int] | np.ndarray | None = None,
) -> float:
    """The log loss on `labels` of the class shares in `train_labels`, add-one smoothed so that it stays finite.

    `num_options` (N,) are the options of the rows of `labels`: absent ones get nothing, and the others' shares are
    scaled to sum to 1. None: every row has all classes.
    """
    counts = np.bincount(np.asarray(train_labels, dtype=np.int64), minlength=num_classes) + 1.0
    present = _options(np.full(len(labels), num_classes) if num_options is None else num_options)
    shares = counts * (np.arange(num_classes) < present[:, None])
    return log_loss(shares / shares.sum(axis=1, keepdims=True), labels)


def reliability(probs: np.ndarray, labels: np.ndarray, num_bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width over the probability of the most probable class; empty bins are left out."""
    probs, labels = _checked(probs, labels)
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    places = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)  # confidence 1 is in the last bin
    masks = [places == place for place in np.unique(places)]
    return [ReliabilityBin(float(confidence[m].mean()), float(right[m].mean()), int(m.sum())) for m in masks]


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, num_bins: int = 10) -> float:
    """Mean |accuracy - confidence| over the bins of `reliability`, weighted by count (Naeini et al. 2015)."""
    bins = reliability(probs, labels, num_bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / len(labels)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single value is NaN, there being none to measure."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


METRICS = (
    Metric("log_loss", log_losses, higher_is_better=False, chance=uniform_log_loss),
    Metric("accuracy", correct, higher_is_better=True, chance=chance_accuracy),
    Metric("expected_calibration_error", expected_calibration_error, higher_is_better=False),
)
QUIZ_METRICS = (*METRICS, Metric("map_at_3", precisions_at_3, True, chance=chance_map_at_3, heading="MAP@3"))


def _options(num_options: int | Sequence[int] | np.ndarray) -> np.ndarray:
    """Numbers of options as (N,) float64, at least 1 each. Raises UserError: a row of none has no chance level."""
    counts = np.atleast_1d(np.asarray(num_options, dtype=np.float64))
    if len(counts) == 0 or not (counts >= 1).all():
        raise UserError(
            f"numbers of options {first_five(counts.tolist()) or 'of no row'}: expected at least one row, and at least "
            "1 option in each; give the number of options of every row that is scored"
        )
    return counts


def _checked(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 probabilities and int64 labels. Raises UserError: unnormalised rows would score silently."""
    probs, labels = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or len(labels) == 0:
        raise UserError(
            f"probabilities of shape {probs.shape} do not fit labels of shape {labels.shape}, expected (N, K) and (N,) "
            "with N > 0; score the predictions against the examples they were made for"
        )
    with np.errstate(invalid="ignore"):
        sound = ((probs >= 0) & (probs <= 1)).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) <= 1e-6)
    if not sound.all():
        raise UserError(
            f"probabilities of {(~sound).sum()} rows are not finite in [0, 1] with sum 1: rows "
            f"{first_five(np.flatnonzero(~sound))}; look for NaN logits, and normalise before scoring"
        )
    known = np.isin(labels, np.arange(probs.shape[1]))
    if not known.all():
        raise UserError(
            f"labels of {(~known).sum()} rows are not one of 0 to {probs.shape[1] - 1}: rows "
            f"{first_five(np.flatnonzero(~known))}; check the task's classes"
        )
    return probs, labels.astype(np.int64)
