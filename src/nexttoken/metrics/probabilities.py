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


def softmax(logs: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) of logarithms or scores (N, K); exactly 0 where one is minus infinity."""
    weights = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return weights / weights.sum(axis=1, keepdims=True)


def log_losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-probability of each label in nats, (N,), clipped at float64's epsilon like scikit-learn's."""
    probs, labels = checked(probs, labels)
    eps = np.finfo(np.float64).eps
    return -np.log(np.clip(probs[np.arange(len(labels)), labels], eps, 1 - eps))


def log_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probs, labels).mean())


def correct(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the most probable class (the first of equals) is the label, else 0, (N,)."""
    probs, labels = checked(probs, labels)
    return (probs.argmax(axis=1) == labels).astype(np.float64)


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `correct`."""
    return float(correct(probs, labels).mean())


def brier_scores(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance of the probabilities from the truth, (N,); of two classes that of one (Brier 1950)."""
    probs, labels = checked(probs, labels)
    squares = ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1)
    return squares / 2 if probs.shape[1] == 2 else squares


def uniform_log_loss(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The log loss of knowing nothing: ln K, or the mean of ln n over the rows' numbers of options (N,)."""
    return float(np.log(options_of(num_options)).mean())


def chance_accuracy(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The expected accuracy of a uniform guess: 1/K, or the mean of 1/n over the rows' numbers of options (N,)."""
    return float((1 / options_of(num_options)).mean())


def chance_brier_score(num_options: int | Sequence[int] | np.ndarray) -> float:
    """The Brier score of equal probabilities: the mean of 1 - 1/n; half of it where no row has more than two."""
    counts = options_of(num_options)
    return float((1 - 1 / counts).mean()) / (2 if counts.max() <= 2 else 1)


def prior_probs(
    train_labels: np.ndarray | Sequence[int], num_classes: int, num_options: int | Sequence[int] | np.ndarray
) -> np.ndarray:
    """The class shares in `train_labels` for each row, (N, K), add-one smoothed so that every score stays finite.

    `num_options` (N,) are the options of the rows: absent ones get nothing, and the others' shares are scaled to sum
    to 1.
    """
    counts = np.bincount(np.asarray(train_labels, dtype=np.int64), minlength=num_classes) + 1.0
    shares = counts * (np.arange(num_classes) < options_of(num_options)[:, None])
    return shares / shares.sum(axis=1, keepdims=True)


def reliability(probs: np.ndarray, labels: np.ndarray, num_bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width over the probability of the most probable class; empty bins are left out."""
    probs, labels = checked(probs, labels)
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
    Metric("accuracy", correct, higher_is_better=True, chance=chance_accuracy, needs="labels"),
    Metric("expected_calibration_error", expected_calibration_error, higher_is_better=False),
)
BRIER_SCORE = Metric("brier_score", brier_scores, higher_is_better=False, chance=chance_brier_score)


def options_of(num_options: int | Sequence[int] | np.ndarray) -> np.ndarray:
    """Numbers of options as (N,) float64, at least 1 each. Raises UserError: a row of none has no chance level."""
    counts = np.atleast_1d(np.asarray(num_options, dtype=np.float64))
    if len(counts) == 0 or not (counts >= 1).all():
        raise UserError(
            f"numbers of options {first_five(counts.tolist()) or 'of no row'}: expected at least one row, and at least "
            "1 option in each; give the number of options of every row that is scored"
        )
    return counts


def checked(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
