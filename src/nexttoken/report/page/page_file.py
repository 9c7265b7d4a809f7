"""The page written: what is read of a folder, its chapters and sections in order, and one HTML file."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nexttoken.data.files import write_text
from nexttoken.errors import UNSHOWN, UserError
from nexttoken.report.page import (
    budget_section,
    curves_section,
    gate_section,
    ladder_section,
    leaderboard_section,
    mistakes_section,
    open_rows_section,
    open_runs_section,
    rows_section,
    runs_section,
    short_section,
)
from nexttoken.report.page.chapter import Chapter, chapters_of
from nexttoken.report.page.open_chapter import OpenChapter, open_chapters_of
from nexttoken.report.page.section import Section, read_asset, render
from nexttoken.runs.ledger import Submission, read_ledger
from nexttoken.runs.read_all import Unread, read_all

SECTIONS: Sequence[Callable[[Chapter], Section | None]] = (
    short_section.section,
    runs_section.section,
    curves_section.section,
    mistakes_section.section,
    rows_section.section,
    budget_section.section,
    gate_section.section,
    leaderboard_section.section,
    ladder_section.section,
)
OPEN_SECTIONS: Sequence[Callable[[OpenChapter], Section | None]] = (
    open_runs_section.section,
    open_rows_section.section,
)
SCRIPTS = ("tables.js", "compare.js", "panels.js", "curves.js", "row_view.js", "rows.js")
log = logging.getLogger(__name__)
ABOUT = "Made by python -m nexttoken page from the files of finished runs. Scores are of out-of-fold rows."


@dataclass(frozen=True)
class Written:
    """The file, its size in bytes, and what could not be read."""

    path: Path
    size: int
    unread: tuple[Unread, ...]


@dataclass(frozen=True)
class ShownChapter:
    """A chapter with the sections that it has."""

    key: str
    title: str
    sections: tuple[Section, ...]


def write_page(path: Path, out: Path, ledger: Path, every_row: bool = False, input_dir: str | None = None) -> Written:
    """Write the page of the runs at or below `path`. Raises UserError where there is no run."""
    read, options = read_all(path), {"every_row": every_row, "input_dir": input_dir}
    lines, unread = _submissions(ledger)
    chapters = [
        _shown(one, SECTIONS) for one in chapters_of(read.runs, lines, submissions_dir=ledger.parent, **options)
    ]
    chapters += [_shown(one, OPEN_SECTIONS) for one in open_chapters_of(read.open_runs, **options)]
    unread = (*read.unread, *unread)
    write_text(page_text(path, chapters, unread), out)
    return Written(out, out.stat().st_size, unread)


def page_text(path: Path, chapters: Sequence[ShownChapter], unread: Sequence[Unread]) -> str:
    """The HTML of the page, with hidden characters of its texts made visible."""
    html = render(
        "page.html.jinja",
        title=f"Runs of {path.resolve().name}",
        about=ABOUT,
        chapters=chapters,
        unread=unread,
        style=read_asset("page.css"),
        scripts=[read_asset(f"scripts/{name}") for name in SCRIPTS],
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )
    # These escapes are read by JSON as well: texts within data stay as they are.
    return UNSHOWN.sub(lambda found: f"\\u{ord(found.group()):04x}", html.replace("\r\n", "\n").replace("\r", "\n"))


def _submissions(ledger: Path) -> tuple[tuple[Submission, ...], tuple[Unread, ...]]:
    """The ledger's lines; none, and the reason, where it cannot be read."""
    try:
        return tuple(read_ledger(ledger)), ()
    except UserError as error:
        return (), (Unread(ledger, str(error)),)


def _shown(chapter: Any, makers: Sequence[Callable[[Any], Section | None]]) -> ShownChapter:
    found = (_made(make, chapter) for make in makers)
    return ShownChapter(chapter.key, chapter.title, tuple(one for one in found if one is not None))


def _made(make: Callable[[Any], Section | None], chapter: Any) -> Section | None:
    """The section, or a sentence where the runs' files or data do not have what it shows."""
    try:
        return make(chapter)
    except UserError as error:
        reason = str(error)
    except Exception as error:  # an edited file of one run must not cost the page of all
        log.debug("%s", make.__module__, exc_info=True)
        reason = f"a file of these runs has a value that was not expected ({type(error).__name__}: {error})"
    name = make.__module__.rpartition(".")[2].removesuffix("_section").removeprefix("open_")
    return Section(name, name.replace("_", " ").capitalize(), render("reason.html.jinja", reason=reason))
