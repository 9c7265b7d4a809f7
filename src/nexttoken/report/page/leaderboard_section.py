"""The section of the leaderboard: out-of-fold beside public and private scores, their line, and two final picks."""

from collections.abc import Mapping, Sequence

import numpy as np

from nexttoken.report.leaderboard import (
    LeaderboardLine,
    Scored,
    describe_line,
    describe_picks,
    public_points,
    read_scored,
    score_of,
)
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, render
from nexttoken.report.page.svg import Axis, Plot
from nexttoken.report.published import PublishedScore, published_scores
from nexttoken.runs.ledger import Submission

NUM_PLACES = 30  # of the band beside the line
PRIVATE = "private LB"


def section(chapter: Chapter) -> Section | None:
    """The submissions of the chapter's runs and published scores; None where there is neither."""
    lines = [line for line in chapter.submissions if any(line.is_of(run.folder) for run in chapter.runs)]
    published = published_scores() if chapter.data.has_published_scores else []
    if not lines and not published:
        return None
    known = [
        read_scored(line, chapter.submissions_dir) for line in lines if chapter.submissions_dir and is_scored(line)
    ]
    line = LeaderboardLine.through(public_points(known))
    medals = [one for one in published if one.what == "final standing"] if chapter.data.is_published else []
    html = render(
        "leaderboard.html.jinja",
        metric=chapter.metric,
        lines=[(one, score_of(one)) for one in lines],
        sentences=[*describe_line(known), *describe_picks(known, chapter.metric.name)] if lines else [],
        plot=_plot(chapter, known, line, medals).svg() if line else "",
        predictions=_predictions(chapter, lines, line) if line else [],
        medals=medals,
        published=published,
        is_comparable=chapter.data.is_published,
    )
    return Section("leaderboard", "Leaderboard", html)


def is_scored(line: Submission) -> bool:
    return score_of(line) is not None


def _predictions(chapter: Chapter, lines: Sequence[Submission], line: LeaderboardLine) -> list[Mapping[str, object]]:
    """The public score that the line gives each run that was not submitted."""
    left = [run for run in chapter.runs if not any(one.is_of(run.folder) for one in lines)]
    scores = {run.title: run.score(chapter.metric) for run in left}
    return [
        {"name": name, "own": own, "score": line.at(own), "interval": line.interval(own)}
        for name, own in scores.items()
    ]


def _plot(chapter: Chapter, known: Sequence[Scored], line: LeaderboardLine, medals: Sequence[PublishedScore]) -> Plot:
    """Points of the submissions, the line, the band in which one more would lie, and the medal lines."""
    both = [one.line.private_lb for one in known if one.line.private_lb is not None]
    heights = [*line.scores.tolist(), *both, *(one.score for one in medals)]
    title = chapter.metric.title
    x = Axis.over(line.own.tolist(), f"out-of-fold {title}")
    plot = Plot(x, Axis.over(heights, f"leaderboard {title}", 0.12), f"Leaderboard against out-of-fold {title}")
    places = np.linspace(x.low, x.high, NUM_PLACES).tolist()
    plot.line(places, [line.at(place) for place in places], "fitted line", "s0")
    bands = [found for place in places if (found := line.interval(place)) is not None]
    if bands:
        plot.line(places, [one.low for one in bands], "lower end of 95 %", "s0 thin dashed")
        plot.line(places, [one.high for one in bands], "upper end of 95 %", "s0 thin dashed")
    plot.levels({f"{one.who}, private": one.score for one in medals if one.kind == PRIVATE})
    for one in known:
        for score, kind, style in ((one.line.public_lb, "public", "s0"), (one.line.private_lb, "private", "s1")):
            if score is not None:
                plot.dot(one.score, score, f"{one.line.file}: {one.score:.4f} out of fold, {kind} {score:.4f}", style)
    return plot
