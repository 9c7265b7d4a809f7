"""Compare variants of one setting on the same rows, folds and seeds, with confidence intervals.

python -m nexttoken compare output/lmsys by=head            runs that differ in the head and in nothing else
python -m nexttoken compare output/lmsys by=adapter.r       any key of a run's config.yaml

Arguments:
  path ...        run folders, or folders of runs
  by=...          the setting that differs
  baseline=...    variant that the others are compared with, or a part of its name (default: the first)
  metric=...      compare by this metric only (default: all)
  out=FILE.md     also write the tables to this file
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.data.files import write_text
from nexttoken.errors import UserError, nearest
from nexttoken.report.compare import COMPARED, compare


class CompareArguments(Arguments):
    paths: tuple[Path, ...]
    by: str
    baseline: str | None = None
    metric: str | None = None
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = CompareArguments.parse(arguments)
    if given.metric is not None and given.metric not in COMPARED:
        raise UserError(f"metric={given.metric} cannot be compared; {nearest(given.metric, COMPARED)}")
    metrics = [COMPARED[given.metric]] if given.metric else list(COMPARED.values())
    page = compare(given.paths, given.by, given.baseline, metrics)
    page += f"\n\nCommand: `{shlex.join(['python', '-m', 'nexttoken', 'compare', *arguments])}`"
    print(page)
    if given.out:
        write_text(page, given.out)
        print(f"\nwrote {given.out}")
