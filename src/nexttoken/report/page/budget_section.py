"""The section of budgets: the score of each way to answer against tokens and time, and the front of the best ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.files import read_json
from nexttoken.errors import UserError
from nexttoken.metrics.intervals import Interval, score_interval
from nexttoken.report.asked import milliseconds_a_row
from nexttoken.report.cascade import CHOSEN as CASCADE_CHOSEN
from nexttoken.report.gate import CHOSEN as GATE_CHOSEN
from nexttoken.report.markdown import digits_for
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, interval, number, render
from nexttoken.report.page.svg import Axis, Plot
from nexttoken.runs.records import read_gate
from nexttoken.runs.scored_runs import Run
from nexttoken.types import Metric

SAME_COST = 0.02  # costs that differ by less count as one: times vary more than that
AGAIN = "the command that wrote it writes it again"
COSTS = {"tokens": "tokens a row", "milliseconds": "milliseconds a row"}
MAX_NAMED = 8  # points with a name in the picture; of more only those of the front have one


@dataclass(frozen=True)
class BudgetPoint:
    """A way to answer, its score by the task's metric, and its cost; None for what is not known.

    `share` is the share of rows that went through a second pass, by a gate or by a cascade's larger run.
    """

    name: str
    score: float
    interval: Interval | None = None
    tokens: float | None = None  # a row
    milliseconds: float | None = None  # a row
    rows_per_second: float | None = None
    memory: float | None = None  # MB
    share: float | None = None


def budget_points(chapter: Chapter) -> tuple[list[BudgetPoint], list[str]]:
    """The points of the chapter's runs, the best run first, and why gates or cascades beside them are not shown."""
    points = [_of_run(run, of_run.tolist()) for run, of_run in zip(chapter.runs, chapter.groups, strict=True)]
    reasons = []
    for run in chapter.runs:
        for read in (_of_gate, _of_cascade):
            try:
                points += read(run, chapter)
            except UserError as error:
                reasons.append(str(error))
    return points, reasons


def front(points: Sequence[BudgetPoint], cost: str, metric: Metric) -> list[int]:
    """Places of the points without a better one at the same `cost` or less, the cheapest first."""
    sign = -1 if metric.higher_is_better else 1
    costs = {place: float(value) for place, one in enumerate(points) if (value := getattr(one, cost)) is not None}

    def is_beaten(place: int) -> bool:
        allowed = costs[place] * (1 + SAME_COST)
        return any(
            sign * points[other].score < sign * points[place].score and costs[other] <= allowed for other in costs
        )

    return sorted((place for place in costs if not is_beaten(place)), key=lambda place: costs[place])


def _of_run(run: Run, groups: list[str]) -> BudgetPoint:
    saved = [fold.metrics for fold in run.folds]
    speeds = [(one["num_examples"], one["rows_per_second"]) for one in saved if one.get("rows_per_second")]
    seconds = sum(rows / speed for rows, speed in speeds)
    try:
        milliseconds = milliseconds_a_row(run)
    except UserError:  # a broken rows.csv: the score does not depend on it
        milliseconds = None
    return BudgetPoint(
        run.title,
        run.score(run.metric),
        score_interval(run.metric, run.scored(run.metric), groups),
        run.tokens_a_row,
        milliseconds,
        sum(rows for rows, _ in speeds) / seconds if len(speeds) == len(saved) and seconds else None,
        max((one["peak_memory_mb"] for one in saved if one.get("peak_memory_mb")), default=None),
    )


def _of_gate(run: Run, chapter: Chapter) -> Iterator[BudgetPoint]:
    """The thresholds that were chosen on the other folds, where gate.json has the score by the task's metric."""
    path = run.folder / "gate.json"
    if not path.exists():
        return
    read_gate(path)
    outcome = _part(read_json(path), ("outcomes", GATE_CHOSEN), path)
    if chapter.metric.name in outcome:
        numbers = [outcome.get(key) for key in (chapter.metric.name, "tokens", "seconds", "share_searched")]
        score, tokens, seconds, share = _numbers(numbers, path)
        yield BudgetPoint(f"{run.title}, gate", score, tokens=tokens, milliseconds=1000 * seconds, share=share)


def _of_cascade(run: Run, chapter: Chapter) -> Iterator[BudgetPoint]:
    """The cascade that was chosen out of fold; its tokens and times are known where the larger run is on the page."""
    path = run.folder / "cascade.json"
    if not path.exists():
        return
    saved = read_json(path)
    chosen = [one for one in saved.get("points", ()) if isinstance(one, dict) and one.get("name") == CASCADE_CHOSEN]
    if not chosen or saved.get("metric") != chapter.metric.name:
        raise UserError(f"{path} has no chosen cascade by {chapter.metric.title}; {AGAIN}")
    ends = _part(chosen[0], ("interval",), path)
    score, share, low, high = _numbers([chosen[0].get("score"), chosen[0].get("share"), *ends.values()], path)
    name = Path(str(saved["runs"][1])).name if len(saved.get("runs", ())) == 2 else ""
    larger = next((one for one in chapter.runs if one.folder.resolve().name == name), None)
    tokens = _together(run.tokens_a_row, larger.tokens_a_row if larger else None, share)
    times = _together(milliseconds_a_row(run), milliseconds_a_row(larger) if larger else None, share)
    yield BudgetPoint(f"{run.title}, then {name}", score, Interval(low, high), tokens, times, share=share)


def _together(small: float | None, larger: float | None, share: float) -> float | None:
    return None if small is None or larger is None else small + share * larger


def _part(saved: Any, keys: Sequence[str], path: Path) -> dict[str, Any]:
    for key in keys:
        saved = saved.get(key) if isinstance(saved, dict) else None
    if not isinstance(saved, dict):
        raise UserError(f"{path} has no {' of '.join(reversed(keys))}; {AGAIN}")
    return saved


def _numbers(values: Sequence[Any], path: Path) -> list[float]:
    if not all(isinstance(value, int | float) for value in values) or not np.isfinite(values).all():
        raise UserError(f"{path} lacks a number; {AGAIN}")
    return [float(value) for value in values]


def section(chapter: Chapter) -> Section | None:
    """A plane for each cost that two points have, and the table; None where there is one way to answer."""
    points, reasons = budget_points(chapter)
    if len(points) < 2:
        return None
    fronts = {cost: front(points, cost, chapter.metric) for cost in COSTS}
    known = [cost for cost in COSTS if sum(getattr(point, cost) is not None for point in points) > 1]
    html = render(
        "budget.html.jinja",
        metric=chapter.metric,
        plots=[_plot(points, cost, fronts[cost], chapter.metric).svg() for cost in known],
        rows=[
            (point, digits_for(point.interval), [COSTS[cost] for cost in known if place in fronts[cost]])
            for place, point in enumerate(points)
        ],
        has_shares=any(point.share is not None for point in points),
        reasons=reasons,
    )
    return Section("budget", "Budget", html)


def _plot(points: Sequence[BudgetPoint], cost: str, best: Sequence[int], metric: Metric) -> Plot:
    places = [place for place, point in enumerate(points) if getattr(point, cost) is not None]
    costs = {place: float(getattr(points[place], cost)) for place in places}
    heights = [points[place].score for place in places]
    for place in places:
        if (found := points[place].interval) is not None:
            heights += [found.low, found.high]
    x = Axis.over([0.0, *costs.values()], COSTS[cost])
    plot = Plot(Axis(0.0, x.high, x.label), Axis.over(heights, metric.title), f"{metric.title} against {COSTS[cost]}")
    if len(best) > 1:
        plot.line([costs[one] for one in best], [points[one].score for one in best], "the front", "s7 dashed thin")
    for place in places:
        point, digits = points[place], digits_for(points[place].interval)
        style = "s0" if place in best else "s7"
        name = f"{point.name}: {number(point.score, digits)} at {costs[place]:,.1f} {COSTS[cost]}"
        if point.interval is not None:
            ends = (costs[place], point.interval.low), (costs[place], point.interval.high)
            plot.span(*ends, f"{point.name}: 95 % interval {interval(point.interval, digits)}", f"{style} thin")
        plot.dot(costs[place], point.score, name, style, 5 if place in best else 4)
        if place in best or len(places) <= MAX_NAMED:
            plot.note(costs[place], point.score, point.name)
    return plot
