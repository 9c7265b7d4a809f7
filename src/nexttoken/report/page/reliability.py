"""Reliability: how often predictions are right beside how sure they are, before and after calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nexttoken.metrics.probabilities import ReliabilityBin, expected_calibration_error, reliability
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.svg import Axis, Plot
from nexttoken.runs.calibration_fit import cross_fitted
from nexttoken.runs.scored_runs import Run, probabilities

NUM_BINS = 10
MAX_CLASSES = 6  # with a plot of their own
BEFORE, AFTER = "before calibration", "after"


@dataclass(frozen=True)
class Reliability:
    """The error of the confidence, and its picture; `after` is None where no calibration can be fitted."""

    before: float
    after: float | None
    picture: Markup


def calibrated_probs(run: Run) -> np.ndarray | None:
    """The probabilities (N, K) after a temperature that was fitted on the other folds; None of a single fold."""
    return probabilities(cross_fitted("temperature", run).oof) if len(run.folds) > 1 else None


def of_all_rows(outcome: Outcome, after: np.ndarray | None) -> Reliability:
    """Of the most probable class of each row."""
    errors = [
        None if probs is None else expected_calibration_error(probs, outcome.labels, NUM_BINS)
        for probs in (outcome.probs, after)
    ]
    curves = [reliability(probs, outcome.labels, NUM_BINS) for probs in (outcome.probs, after) if probs is not None]
    lowest = 1 / max(2, len(outcome.names))
    picture = _picture(curves, "probability of the most probable class", "share decided rightly", "All rows", lowest)
    assert errors[0] is not None
    return Reliability(errors[0], errors[1], picture)


def by_class(outcome: Outcome, after: np.ndarray | None) -> dict[str, Reliability]:
    """Of the probability of each class, whether or not it is the most probable one; {} for many classes."""
    if len(outcome.names) > MAX_CLASSES:
        return {}
    found = {}
    for k, name in enumerate(outcome.names):
        is_label = outcome.labels == k
        curves = [class_bins(probs[:, k], is_label) for probs in (outcome.probs, after) if probs is not None]
        errors = [
            sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(is_label) for bins in curves
        ]
        picture = _picture(curves, f"probability of {name}", f"share of {name}", name)
        found[name] = Reliability(errors[0], errors[1] if after is not None else None, picture)
    return found


def class_bins(probs: np.ndarray, is_label: np.ndarray) -> list[ReliabilityBin]:
    """Bins of equal width over the probability (N,) of a class; empty bins are left out."""
    places = np.minimum((probs * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts, sums, hits = (np.bincount(places, one, NUM_BINS) for one in (np.ones(len(probs)), probs, is_label))
    return [
        ReliabilityBin(float(sums[k] / counts[k]), float(hits[k] / counts[k]), int(counts[k]))
        for k in np.flatnonzero(counts)
    ]


def slice_errors(outcome: Outcome, probs: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The expected calibration error of each slice, (S,), from `members` (N, S), 1 for the rows of a slice."""
    sure = probs.max(axis=1)
    places = np.minimum((sure * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    off = (probs.argmax(axis=1) == outcome.labels) - sure
    by_bin = (np.eye(NUM_BINS)[places] * off[:, None]).T @ members
    return np.abs(by_bin).sum(axis=0) / members.sum(axis=0)


def _picture(curves: Sequence[list[ReliabilityBin]], x: str, y: str, title: str, low: float = 0.0) -> Markup:
    plot = Plot(Axis(low, 1, x), Axis(0, 1, y), f"{title}: {y} against {x}", 420, 320)
    plot.span((low, low), (1, 1), "as often right as sure", "level")
    most = max(one.count for bins in curves for one in bins)
    for place, (name, bins) in enumerate(zip((BEFORE, AFTER), curves, strict=False)):
        style = f"s{place}" + (" dashed" if place else "")
        plot.line([one.confidence for one in bins], [one.accuracy for one in bins], name, style)
        for one in bins:
            words = f"{name}: {one.count:,} rows, probability {one.confidence:.2f}, right {one.accuracy:.2f}"
            plot.dot(one.confidence, one.accuracy, words, f"s{place}", 2 + 5 * (one.count / most) ** 0.5)
    return plot.svg()
