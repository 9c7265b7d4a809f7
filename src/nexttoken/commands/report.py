"""Runs and folds beside their references, with learning curves and calibration plots.

python -m nexttoken report output/lmsys            a folder of runs, or one run
python -m nexttoken report output/jmmlu by=genre   score and latency for each genre (or file, or other tag)

out=...            folder for report.md and the plots; the folder of the runs
ledger=...         submissions with their leaderboard scores; submissions/ledger.csv
published=true     with by=...: also another quiz's published tables
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.data.files import whole_file
from nexttoken.report.genre_plot import genre_accuracies
from nexttoken.report.genres import ByTag
from nexttoken.report.plots import learning_curves, reliability_diagram
from nexttoken.report.published import published_quiz_tables
from nexttoken.report.tables import runs_table
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import read_runs


class ReportArguments(Arguments):
    paths: OnePath
    out: Path | None = None
    ledger: Path = Path("submissions/ledger.csv")
    by: str | None = None
    published: bool = False


def main(arguments: Sequence[str]) -> None:
    """Print the tables; write report.md and the plots."""
    given = ReportArguments.parse(arguments)
    path = given.paths[0]
    out = given.out or path
    if given.by:
        print(report_by_tag(path, out, given.by, given.published))
    else:
        print(report(path, out, given.ledger))


def report(path: Path, out: Path, ledger: Path) -> str:
    """Write report.md, learning_curves.png and a reliability_<run>_<data>.png per run into `out`; return the output."""
    runs = read_runs(path)
    tables = runs_table(runs, read_ledger(ledger))
    pictures: list[tuple[str, Path]] = []
    if with_curves := [run for run in runs if any(fold.curve is not None for fold in run.folds)]:
        pictures.append(("Learning curves", out / "learning_curves.png"))
        learning_curves(with_curves, pictures[-1][1])
    for run in runs:
        title = f"Reliability of {run.name} on {run.data.dataset}"
        name = f"reliability_{run.name}_{run.data.dataset}.png".replace("/", "_")
        pictures.append((title, out / name))
        reliability_diagram(run.oof, pictures[-1][1], title)
    images = "\n\n".join(f"![{title}](<{picture.name}>)" for title, picture in pictures)
    with whole_file(out / "report.md") as part:
        part.write_text(f"# Report\n\n{tables}\n\n{images}\n", encoding="utf-8")
    written = "\n".join(f"wrote {file}" for file in [out / "report.md", *[picture for _, picture in pictures]])
    return f"{tables}\n\n{written}"


def report_by_tag(path: Path, out: Path, by: str, published: bool) -> str:
    """Write <by>s.md (genres.md) and its picture into `out`; return the output."""
    tables = ByTag.of(read_runs(path), by)
    page, picture = out / f"{by}s.md", out / f"{by}s.png"
    key = genre_accuracies(tables.sections, picture)
    shown = [f"![Accuracy by {by}](<{picture.name}>)"]
    if key:
        shown.append(f"In the picture, for want of a font: {', '.join(key)}.")
    text = "\n\n".join([tables.page(), *shown, *([published_quiz_tables()] if published else [])])
    with whole_file(page) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return f"{text}\n\nwrote {page}\nwrote {picture}"
