"""The section of budgets: the score of each way to answer against tokens and time, and the front of the best ones."""

from collections.abc import Sequence

from nexttoken.report.markdown import digits_for
from nexttoken.report.page.budget_points import BudgetPoint, budget_points, front
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, interval, number, render
from nexttoken.report.page.svg import Axis, Plot
from nexttoken.types import Metric

COSTS = {"tokens": "tokens a row", "milliseconds": "milliseconds a row"}
MAX_NAMED = 8  # points with a name in the picture; of more only those of the front have one


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
