"""The section of the ladder: a row for each step that was tried, with its gain and how sure that is."""

from nexttoken.report.ladder import NOTES, ladder_tables
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, render

MIN_RUNS = 2  # one run alone is no step from another


def section(chapter: Chapter) -> Section | None:
    """The same table as that of `report ladder`; None of one run."""
    if len(chapter.runs) < MIN_RUNS:
        return None
    (table,) = ladder_tables(chapter.runs)
    html = render("ladder.html.jinja", header=table.header, rows=table.rows, notes=NOTES)
    return Section("ladder", "What each step gained", html)
