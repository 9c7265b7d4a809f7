"""Differences between runs on the rows that both scored, each with its interval over groups and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from nexttoken.errors import UserError
from nexttoken.metrics.intervals import Interval
from nexttoken.report.markdown import digits_for
from nexttoken.report.page.section import interval, number
from nexttoken.report.ranking import Ranking, Scored
from nexttoken.report.whole_scores import columns_for, ranking_by
from nexttoken.runs.scored_runs import Fold, Run
from nexttoken.types import Metric

MAX_RUNS = 12  # 66 pairs


@dataclass(frozen=True)
class PairDifference:
    """The score of the run at `one` less that at `other`, on `num_rows` rows that both scored."""

    one: int
    other: int
    num_rows: int
    value: float
    interval: Interval
    sentence: str
    by_fold: str  # the lead in each fold whose rows both scored, "" where there are no two

    @property
    def is_noise(self) -> bool:
        return 0 in self.interval


def pair_differences(runs: Sequence[Run], groups: Sequence[Sequence[str]], metric: Metric) -> list[PairDifference]:
    """Every pair of runs that share rows. Runs of the same rows are resampled together, each other pair by itself."""
    tables = [_table(run, of_run, metric) for run, of_run in zip(runs, groups, strict=True)]
    same_rows: dict[frozenset[str], list[int]] = {}
    for place, table in enumerate(tables):
        same_rows.setdefault(frozenset(table["id"]), []).append(place)
    found = []
    for places in same_rows.values():
        if len(places) > 1 and (ranking := _ranking(tables, places, metric)):
            found += [_difference(runs, ranking, places, pair, metric) for pair in combinations(range(len(places)), 2)]
    known = {(one.one, one.other) for one in found}
    for pair in combinations(range(len(runs)), 2):
        if pair not in known and (ranking := _ranking(tables, pair, metric)):
            found.append(_difference(runs, ranking, pair, (0, 1), metric))
    return sorted(found, key=lambda one: (one.one, one.other))


def _table(run: Run, groups: Sequence[str], metric: Metric) -> pd.DataFrame:
    own = {"id": run.oof["id"].to_numpy(), "label": run.oof["label"].to_numpy(), "group": groups}
    return pd.DataFrame(own | dict(columns_for(metric, run.scored(metric))))


def _ranking(tables: Sequence[pd.DataFrame], places: Sequence[int], metric: Metric) -> Ranking | None:
    """The runs at these places on the rows that all of them have; None where there are not two groups of such."""
    columns = [str(name) for name in tables[places[0]] if name not in ("id", "label", "group")]
    try:
        scored = Scored.of({(str(place), 0): tables[place] for place in places}, columns, same="label")
    except UserError:  # no row in common
        return None
    ranking = ranking_by(metric, scored)
    return ranking if len(set(scored.groups)) > 1 and len(ranking.draws) else None  # none has a score


def _difference(
    runs: Sequence[Run], ranking: Ranking, places: Sequence[int], pair: tuple[int, int], metric: Metric
) -> PairDifference:
    one, other = (places[place] for place in pair)
    value = float(ranking.values[pair[0]] - ranking.values[pair[1]])
    found, num_rows = ranking.difference(*pair), ranking.scored.num_rows
    words = describe(runs[one].title, runs[other].title, value, found, metric)
    better, worse = (one, other) if (value > 0) == metric.higher_is_better else (other, one)
    by_fold = _by_fold(runs[better], runs[worse], metric, digits_for(found))
    return PairDifference(one, other, num_rows, value, found, words, by_fold)


def _by_fold(better: Run, worse: Run, metric: Metric, digits: int) -> str:
    """`Lead of a by fold: fold 0 +0.016, fold 1 -0.002.`, of the folds with the same rows in both."""
    theirs = {fold.number: fold for fold in worse.folds}
    same = [fold for fold in better.folds if fold.number in theirs and _have_same_rows(fold, theirs[fold.number])]
    if len(same) < 2:
        return ""
    sign = 1 if metric.higher_is_better else -1
    values = {fold.number: sign * (fold.score(metric) - theirs[fold.number].score(metric)) for fold in same}
    shown = [f"fold {fold} {number(value, digits, True)}" for fold, value in values.items()]
    return f"Lead of {better.title} by fold: {', '.join(shown)}."


def _have_same_rows(one: Fold, other: Fold) -> bool:
    return set(one.oof["id"]) == set(other.oof["id"])


def describe(one: str, other: str, value: float, found: Interval, metric: Metric) -> str:
    """`one is better than other by 0.021 log loss (95 % interval 0.010 to 0.032)`, or that it may be noise."""
    is_first = (value > 0) == metric.higher_is_better
    better, worse = (one, other) if is_first else (other, one)
    ahead = found if value > 0 else -found
    digits = digits_for(found)
    size = f"{number(abs(value), digits)} in {metric.title}"
    if 0 in found:
        return (
            f"No difference to be seen between {one} and {other}: {better} is ahead by {size}, and the 95 % interval of"
            f" that, {interval(ahead, digits, True)}, holds 0. It may be noise."
        )
    return f"{better} is better than {worse} by {size} (95 % interval {interval(ahead, digits)})."
