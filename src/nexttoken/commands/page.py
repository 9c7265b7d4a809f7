"""Write one HTML file that shows finished runs: scores, curves, mistakes, rows and what they cost.

python -m nexttoken page output/lmsys               writes output/lmsys/page.html
python -m nexttoken page output/ out=all.html       several tasks in one file

Arguments:
  path              a folder of runs, or one run
  out=...           the file (default: <path>/page.html)
  rows=all          keep every row's text whole, however large the file becomes
  input_dir=...     folder of the runs' files, for the texts of rows
  ledger=...        submissions with their leaderboard scores (default: submissions/ledger.csv)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.errors import UserError


def html_path(path: Path) -> Path:
    """Return `path`, with ~ as the home folder. Raises UserError for a file of another kind, such as one of a run."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"out={path} is no page; expected a file whose name ends in .html")
    return path.expanduser()


HtmlPath = Annotated[Path, AfterValidator(html_path)]


class PageArguments(Arguments):
    paths: OnePath
    out: HtmlPath | None = None
    rows: Literal["all"] | None = None
    input_dir: str | None = None
    ledger: Path = Path("submissions/ledger.csv")


def main(arguments: Sequence[str]) -> None:
    given = PageArguments.parse(arguments)
    from nexttoken.report.page.page_file import write_page

    path = given.paths[0]
    written = write_page(path, given.out or path / "page.html", given.ledger, given.rows == "all", given.input_dir)
    for one in written.unread:
        print(f"not shown: {one.folder}: {one.reason}")
    print(f"wrote {written.path}, {written.size / 1e6:.2f} MB")
