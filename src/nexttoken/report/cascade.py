"""The curve of a cascade: its score at every share of rows for the larger run, beside rows drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_scores
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import NOTHING, difference_cell, interval_cell, loss_cell, markdown
from nexttoken.runs.calibration_fit import groups_of
from nexttoken.runs.cascade import SHARES, CascadedRun, Pair

SMALL, LARGER, BOTH, CHOSEN = "small run alone", "larger run alone", "both for every row", "chosen out of fold"
LOW, HIGH = attrgetter("low"), attrgetter("high")
LEVELS = {SMALL: "-.", LARGER: "--", BOTH: ":"}


@dataclass(frozen=True)
class Point:
    """A way to answer the rows: the share that the larger run answers, and the score by the task's metric.

    `cost` is in passes of the larger run for every row, None where it is not known. `gain` is over the same share of
    rows drawn at random. Intervals are 95 % over groups.
    """

    name: str  # "" on the curve
    share: float
    cost: float | None
    score: float
    interval: Interval
    at_random: float
    gain: float
    gain_interval: Interval


def curve_of(pair: Pair, chosen: CascadedRun) -> list[Point]:
    """The points of every share, of both runs alone, of both for every row, and of the chosen cascade.

    Rows at random have the score between that of no row and of every one: exact where the metric is a mean over rows.
    """
    metric, curve = pair.runs[0].metric, [pair.cascaded(share) for share in SHARES]
    never, always = curve[0], curve[-1]
    named = [(SMALL, never), (LARGER, pair.cascaded(1.0, larger_alone=True)), (BOTH, always), (CHOSEN, chosen)]
    ways = [*(("", way) for way in curve), *named]
    draws = resampled_scores(metric, [way.run.scored(metric) for _, way in ways], np.array(groups_of(pair.runs[0])))
    values = np.vstack([[way.run.score(metric) for _, way in ways], draws[~np.isnan(draws).any(axis=1)]])
    sign, last = 1 if metric.higher_is_better else -1, len(SHARES) - 1
    points = []
    for place, (name, way) in enumerate(ways):
        share, own = float(way.went_on.mean()), values[:, place]
        at_random = (1 - share) * values[:, 0] + share * values[:, last]
        gains = sign * (own - at_random)
        intervals = percentile_interval(own[1:]), percentile_interval(gains[1:])
        random_score, gain = float(at_random[0]), float(gains[0])
        cost = _cost(pair, name, share)
        points.append(Point(name, share, cost, float(own[0]), intervals[0], random_score, gain, intervals[1]))
    return points


def _cost(pair: Pair, name: str, share: float) -> float | None:
    own = 0.0 if name == LARGER else pair.relative_cost
    return None if own is None or pair.relative_cost is None else own + share


def cascade_table(pair: Pair, points: Sequence[Point]) -> str:
    """Markdown: a row for each point."""
    rows = []
    for point in points:
        name = f"chosen, {point.share:.1%}" if point.name == CHOSEN else point.name or f"{point.share:.1%}"
        gain = [difference_cell(point.gain), interval_cell(point.gain_interval, "+")]
        cost = NOTHING if point.cost is None else f"{point.cost:.3f}"
        beside = [NOTHING] * 2 if point.name in LEVELS else gain
        rows.append([name, cost, loss_cell(point.score), interval_cell(point.interval), *beside])
    metric = pair.runs[0].metric.title
    return markdown(["to the larger run", "cost", metric, "95 % interval", "over random", "95 % interval"], rows)


def cascade_plot(pair: Pair, points: Sequence[Point], path: Path, title: str) -> None:
    """Write a PNG of the score against the cost, or against the share where a cost is not known."""
    metric, lettering = pair.runs[0].metric, Lettering.for_names([title])
    curve, named = [one for one in points if not one.name], {one.name: one for one in points if one.name}
    alone = [pair.cascaded(share, larger_alone=True) for share in SHARES]
    sign = 1 if metric.higher_is_better else -1

    def places(some: Sequence[Point]) -> list[float]:
        return [one.share if one.cost is None else one.cost for one in some]

    with lettering.figure(8.0, 5.2, path) as figure:
        axes, x = figure.subplots(), places(curve)
        low, high = ([one.at_random + sign * end(one.gain_interval) for one in curve] for end in (LOW, HIGH))
        axes.fill_between(x, low, high, alpha=0.15, linewidth=0, label="95 % interval of its gain over random")
        axes.plot(x, [one.score for one in curve], marker=".", label="cascade: both runs' answer")
        scores = [one.run.score(metric) for one in alone]
        axes.plot(x, scores, marker=".", alpha=0.6, label="cascade: the larger run's answer")
        axes.plot(x, [one.at_random for one in curve], color="0.6", linestyle="--", label="as many rows, at random")
        for name, style in LEVELS.items():
            level: dict[str, Any] = {"color": "0.25", "linewidth": 1, "linestyle": style}
            axes.axhline(named[name].score, **level, label=f"{name}: {named[name].score:.4f}")
        star = named[CHOSEN]
        axes.plot(places([star]), [star.score], "*", markersize=13, label=f"{CHOSEN}: {star.score:.4f}")
        what = "rows to the larger run" if pair.relative_cost is None else "cost, in passes of the larger run"
        axes.set(xlabel=what, ylabel=metric.title)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="best")
        figure.suptitle(f"{lettering.show(title)}: {len(pair.folds):,} out-of-fold rows")
