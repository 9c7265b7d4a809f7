"""Runs beside their references: `python -m nexttoken.report output/lmsys [--out DIR] [--ledger FILE]`."""

import argparse
import sys
from pathlib import Path

from nexttoken.errors import UserError
from nexttoken.files import whole_file
from nexttoken.ledger import read_ledger
from nexttoken.report.plots import learning_curves, reliability_diagram
from nexttoken.report.read import read_runs
from nexttoken.report.tables import runs_table


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; write report.md and the plots. An error is one line and status 2."""
    parser = argparse.ArgumentParser(prog="python -m nexttoken.report", description=__doc__)
    parser.add_argument("path", type=Path, help="a run folder, or a folder of runs such as output/lmsys")
    parser.add_argument("--out", type=Path, help="folder for report.md and the plots (default: PATH)")
    parser.add_argument("--ledger", type=Path, default=Path("submissions/ledger.csv"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        print(report(options.path, options.out or options.path, options.ledger))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
