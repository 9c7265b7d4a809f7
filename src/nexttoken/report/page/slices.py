"""Slices of the rows by what files and texts say of each, such as a language, scored beside the rest of the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.page.outcome import Measured, Outcome, measured_sums
from nexttoken.report.page.reliability import slice_errors
from nexttoken.report.page.text_parts import Texts
from nexttoken.runs.scored_runs import Run
from nexttoken.transforms.curation.language import language_of
from nexttoken.types import Metric

QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
GROUP_SIZES = ("alone", "two alike", "three or more alike")
TURNS = ("0", "1", "2", "3", "4 or more")
MAX_LETTERS = 300  # of a text that its language is found by
UNKNOWN = "unknown"
MEASURED = ("seconds", "outside")  # columns of rows.csv that are no kind of row, whatever their values
LABEL = "label"  # the factor whose slices say nothing of calibration: all of their rows have one answer
MAX_VALUES = 12  # of a factor; the rarer ones are put together
OTHERS = "all others"


def factors_of(run: Run, outcome: Outcome, texts: Mapping[str, pd.Categorical]) -> dict[str, pd.Categorical]:
    """The factors of a run's rows, (N,) each; `texts` are those that the texts say."""
    _, places, sizes = np.unique(outcome.groups, return_inverse=True, return_counts=True)
    return {
        LABEL: _ordered(outcome.labels, outcome.names),
        "fold": pd.Categorical(outcome.folds),
        **texts,
        **_recorded(run, outcome.ids),
        "near-duplicate rows": _ordered(np.minimum(sizes[places], 3) - 1, GROUP_SIZES),
    }


def _recorded(run: Run, ids: np.ndarray) -> dict[str, pd.Categorical]:
    """The columns of rows.csv with few values: tags, numbers of options, and what inference did with a row."""
    try:
        parts = [read_table(fold.folder / "rows.csv", ["id"], "run the fold again") for fold in run.folds]
    except UserError:  # a run of an earlier version
        return {}
    table = pd.concat(parts).drop_duplicates("id").set_index("id").reindex(ids).fillna("")
    return {
        str(name).replace("num_options", "options").replace("_", " "): pd.Categorical(table[name].to_numpy())
        for name in table
        if 1 < table[name].nunique() <= max(30, len(table) // 20) and not _is_measured(table[name])
    }


def _is_measured(column: "pd.Series[str]") -> bool:
    """True for a column of fractions, such as seconds."""
    numbers = pd.to_numeric(column[column != ""], errors="coerce")  # a column may know some rows only
    return str(column.name) in MEASURED or bool((numbers % 1 > 0).any() and numbers.notna().all())


def text_factors(texts: Texts) -> dict[str, pd.Categorical]:
    """The factors of all rows of `texts` that these say; {} without texts."""
    if not texts.prompts:
        return {}
    factors = {"length of the prompt": _quarters([*map(len, texts.prompts)])}
    if any(texts.answers):
        factors["length of the answers"] = _quarters([sum(map(len, answers)) for answers in texts.answers])
    turns = {"turns": _ordered(np.minimum(texts.turns, len(TURNS) - 1), TURNS)}
    return factors | turns | _languages(texts.prompts)


def _quarters(lengths: Sequence[int]) -> pd.Categorical:
    """The quarter of each length among all of them; equal lengths are in the same one."""
    edges = np.quantile(lengths, [0.25, 0.5, 0.75])
    return _ordered(np.searchsorted(edges, lengths, side="left"), QUARTERS)


def _ordered(codes: np.ndarray, names: Sequence[str]) -> pd.Categorical:
    """The names at these places, which keep the order of `names`."""
    return pd.Categorical(np.array(names, dtype=object)[codes], categories=list(names))


def _languages(prompts: Sequence[str]) -> dict[str, pd.Categorical]:
    """The language of each prompt's beginning; {} where the detector is not installed."""
    try:
        codes = [_language(text[:MAX_LETTERS]) for text in prompts]
    except UserError:
        return {}
    return {"language": pd.Categorical(np.array(codes, dtype=object))}


@cache
def _language(text: str) -> str:
    """The language of a text, found once for all runs. Raises UserError where the detector is not installed."""
    return language_of(text) or UNKNOWN


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
