"""The section of runs: a sortable table of their scores with intervals."""

from nexttoken.metrics.intervals import score_interval
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, digits_for, render


def section(chapter: Chapter) -> Section:
    """A row for each run, the best first: score, interval over groups, and each fold's score."""
    rows, metric = [], chapter.metric
    numbers = sorted({fold.number for run in chapter.runs for fold in run.folds})
    for run, groups in zip(chapter.runs, chapter.groups, strict=True):
        found = score_interval(metric, run.scored(metric), groups.tolist())
        by_fold = run.by_fold(metric)
        rows.append(
            {
                "name": run.title,
                "score": run.score(metric),
                "interval": found,
                "digits": digits_for(found),
                "folds": [by_fold.get(number) for number in numbers],
            }
        )
    html = render("runs.html.jinja", key=chapter.key, metric=metric, numbers=numbers, rows=rows)
    return Section("runs", "Runs", html)
