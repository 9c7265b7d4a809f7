"""Show runs and folds beside reference scores, with learning curves and calibration plots.

python -m nexttoken report output/lmsys            a folder of runs, or one run
python -m nexttoken report output/jmmlu by=genre   score and latency for each genre (or file, or another tag)
python -m nexttoken report ladder output/lmsys     a row for each run, asked way, calibration and blend: what it gained

Arguments:
  path              a folder of runs, or one run
  by=...            show a table for each value of this tag
  out=...           folder for report.md and its pictures/ (default: <path>/report)
  ledger=...        submissions with their leaderboard scores (default: submissions/ledger.csv)
  published=true    with by=...: also show another quiz's published tables
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.data.files import write_text
from nexttoken.data.whole_files import make_folder
from nexttoken.report.by_tag import page_by_tag, plot_accuracies, read_sections
from nexttoken.report.ladder import ladder_page, ladder_tables
from nexttoken.report.markdown import MAX_WIDTH, PAGE_WIDTH, plain
from nexttoken.report.plots import learning_curves, reliability_diagram
from nexttoken.report.published import published_quiz_tables
from nexttoken.report.seeds import seeds_section
from nexttoken.report.tables import runs_table
from nexttoken.report.terminal import show
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import read_runs

LADDER = "ladder"  # before the path
PICTURES = "pictures"  # the folder beside the page


class ReportArguments(Arguments):
    paths: OnePath
    out: Path | None = None
    ledger: Path = Path("submissions/ledger.csv")
    by: str | None = None
    published: bool = False


def main(arguments: Sequence[str]) -> None:
    has_path = any("=" not in argument for argument in arguments[1:])
    is_ladder = arguments[:1] == [LADDER] and (has_path or not Path(LADDER).exists())
    given = ReportArguments.parse(arguments[1:] if is_ladder else arguments)
    path = given.paths[0]
    out = given.out or path / "report"
    if is_ladder:
        page, written = report_ladder(path, out)
    elif given.by:
        page, written = report_by_tag(path, out, given.by, given.published, given.ledger)
    else:
        page, written = report(path, out, given.ledger)
    show(page)
    print("\n" + "\n".join(f"wrote {file}" for file in written))


def report(path: Path, out: Path, ledger: Path) -> tuple[str, list[Path]]:
    """Write report.md and pictures/ into `out`: learning_curves.png, and a reliability_<run>_<data>.png per run.

    Returns the tables, and the files that were written.
    """
    runs = read_runs(path)
    tables = "\n\n".join([runs_table(runs, read_ledger(ledger)), *seeds_section(runs)])
    make_folder(out)
    titles: dict[str, str] = {}  # of the pictures, by file name
    replaced: list[str] = []
    if with_curves := [run for run in runs if any(fold.curve is not None for fold in run.folds)]:
        titles["learning_curves.png"] = "Learning curves"
        replaced += learning_curves(with_curves, out / PICTURES / "learning_curves.png")
    for run in runs:
        name = f"reliability_{run.name}_{run.data.dataset}.png".replace("/", "_")
        titles[name] = f"Reliability of {run.name} on {run.data.dataset}"
        reliability_diagram(run.oof, out / PICTURES / name, titles[name])  # the page has its title beside it
    images = [f"![{plain(title)}](<{PICTURES}/{quote(name)}>)" for name, title in titles.items()]
    write_text("\n\n".join(["# Report", tables, *_without_a_font(replaced), *images]), out / "report.md")
    return tables, [out / "report.md", *(out / PICTURES / name for name in titles)]


def report_ladder(path: Path, out: Path) -> tuple[str, list[Path]]:
    """Write ladder.md into `out`; return the same table in pieces that fit a terminal, and the file."""
    tables = ladder_tables(read_runs(path))
    write_text(f"# Ladder\n\n{ladder_page(tables, PAGE_WIDTH)}", out / "ladder.md")
    return ladder_page(tables, MAX_WIDTH), [out / "ladder.md"]


def report_by_tag(path: Path, out: Path, by: str, published: bool, ledger: Path) -> tuple[str, list[Path]]:
    """Write <by>s.md (genres.md) into `out` and its picture into pictures/; return the page, and both files."""
    sections, notes = read_sections(read_runs(path), by, ledger)
    page, picture = out / f"{by}s.md", out / PICTURES / f"{by}s.png"
    parts = [page_by_tag(by, sections, notes), f"![Accuracy by {plain(by)}](<{PICTURES}/{quote(picture.name)}>)"]
    parts += _without_a_font(plot_accuracies(sections, picture))
    text = "\n\n".join([*parts, *([published_quiz_tables()] if published else [])])
    write_text(text, page)
    return text, [page, picture]


def _without_a_font(key: Sequence[str]) -> list[str]:
    """A sentence about the names that numbers stand for in a picture, if there are any."""
    return [f"No installed font has the letters of some names; in the picture {plain(', '.join(key))}."] if key else []
