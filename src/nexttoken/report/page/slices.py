"""Scores of slices of the rows, such as the longest quarter or one language, each beside the rest of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.page.measured import Measured, measured_sums
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.reliability import slice_errors
from nexttoken.types import Metric

LABEL = "label"  # the factor whose slices say nothing of calibration: all of their rows have one answer
MAX_VALUES = 12  # of a factor; the rarer ones are put together
OTHERS = "all others"


@dataclass(frozen=True)
class Slice:
    """The `count` rows with one value of a factor. `difference` is the score less that of the rest of the rows."""

    factor: str
    value: str
    count: int
    score: Measured
    difference: Measured
    accuracy: float
    error_before: float  # of the confidence; NaN for a label
    error_after: float  # after calibration; NaN without one
    verdict: str  # "better", "worse", or "" where the interval of the difference holds 0


def slice_metric(outcome: Outcome, metric: Metric) -> Metric:
    """The task's own metric where it is a mean over rows, else log loss."""
    return metric if outcome.values_of(metric) is not None else METRICS[0]


def slice_scores(
    outcome: Outcome, factors: Mapping[str, pd.Categorical], metric: Metric, after: np.ndarray | None
) -> list[Slice]:
    """The scores by `metric`, a mean over rows, of each value of each factor (N,), the factors in their order."""
    tables = {name: _members(values) for name, values in factors.items() if len(values.unique()) > 1}
    if not tables:
        return []
    places = [(factor, value) for factor, table in tables.items() for value in table]
    members = np.stack([column for table in tables.values() for column in table.values()], axis=1).astype(np.float64)
    values = np.asarray(outcome.values_of(metric))[:, None]
    tables_of_sums = [members, members * values, np.ones_like(values), values]
    scores, differences = measured_sums(tables_of_sums, outcome.groups, _score_and_difference)
    counts = members.sum(axis=0)
    accuracy = members.T @ outcome.right / counts
    is_label = np.array([factor == LABEL for factor, _ in places])
    errors = [
        np.where(is_label, np.nan, np.nan if probs is None else slice_errors(outcome, probs, members))
        for probs in (outcome.probs, after)
    ]
    return [
        Slice(
            *place,
            int(counts[k]),
            scores[k],
            differences[k],
            float(accuracy[k]),
            float(errors[0][k]),
            float(errors[1][k]),
            _verdict(differences[k], metric),
        )
        for k, place in enumerate(places)
    ]


def _score_and_difference(
    counts: np.ndarray, values: np.ndarray, number: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    score = values / counts
    return score, score - (total - values) / (number - counts)


def _members(factor: pd.Categorical) -> dict[str, np.ndarray]:
    """The rows (N,) of each value of a factor in the order of the factor, the rarest ones of many put together."""
    counts = pd.Series(factor).value_counts()
    kept = set(counts.index[:MAX_VALUES] if len(counts) > MAX_VALUES + 1 else counts.index[counts > 0])
    names = np.asarray(factor.astype(object))
    found = {str(name): names == name for name in factor.categories if name in kept}
    others = ~np.isin(names.astype(str), [*found])
    return found | ({OTHERS: others} if others.any() else {})


def _verdict(difference: Measured, metric: Metric) -> str:
    if not difference.is_sure:
        return ""
    return "better" if (difference.value > 0) == metric.higher_is_better else "worse"


def worst_slice_sentence(slices: list[Slice], metric: Metric) -> str:
    """The slice that is surely worse than the rest and costs most; one that the label defines is no slice to act on."""
    worse = [one for one in slices if one.verdict == "worse" and one.factor != LABEL]
    if not worse:
        return "Apart from the classes, no slice is surely worse than the rest of the rows."
    worst = max(worse, key=lambda one: abs(one.difference.value) * one.count)
    return (
        f"The slice that costs most is {worst.factor} = {worst.value}: {metric.title} {worst.score.value:.3f} on"
        f" {worst.count:,} rows, {abs(worst.difference.value):.3f} worse than the rest."
    )
