"""The page written: what is read of a folder, its chapters and sections in order, and one HTML file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nexttoken.data.files import write_text
from nexttoken.report.page import runs_section, short_section
from nexttoken.report.page.chapter import Chapter, chapters_of
from nexttoken.report.page.section import Section, read_asset, render
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read_all import Unread, read_all

SECTIONS: Sequence[Callable[[Chapter], Section | None]] = (short_section.section, runs_section.section)
SCRIPTS = ("tables.js", "compare.js")
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
    read = read_all(path)
    lines = tuple(read_ledger(ledger))
    chapters = chapters_of(read.runs, lines, every_row=every_row, input_dir=input_dir)
    text = page_text(path, chapters, read.unread)
    write_text(text, out)
    return Written(out, out.stat().st_size, read.unread)


def page_text(path: Path, chapters: Sequence[Chapter], unread: Sequence[Unread]) -> str:
    """The HTML of the page."""
    shown = [ShownChapter(one.key, one.title, _sections(one)) for one in chapters]
    return render(
        "page.html.jinja",
        title=f"Runs of {path.resolve().name}",
        about=ABOUT,
        chapters=shown,
        unread=unread,
        style=read_asset("page.css"),
        scripts=[read_asset(f"scripts/{name}") for name in SCRIPTS],
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )


def _sections(chapter: Chapter) -> tuple[Section, ...]:
    return tuple(found for make in SECTIONS if (found := make(chapter)) is not None)
