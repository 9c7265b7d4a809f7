"""Variants of one setting, compared on the same rows, folds and seeds, with intervals.

python -m nexttoken compare output/lmsys by=head            runs that differ in the head and in nothing else
python -m nexttoken compare output/lmsys by=adapter.r       any key of a run's config.yaml

baseline=...    the variant that others are subtracted from, or a part of its name; the first
metric=...      only this one; all
out=FILE.md     write the tables there, too
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.data.files import whole_file
from nexttoken.errors import UserError, nearest
from nexttoken.report.compare import COMPARED, compare


class CompareArguments(Arguments):
    paths: tuple[Path, ...]
    by: str
    baseline: str | None = None
    metric: str | None = None
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Print the comparison, and write it where `out` says."""
    given = CompareArguments.parse(arguments)
    if given.metric is not None and given.metric not in COMPARED:
        raise UserError(f"metric={given.metric} cannot be compared; {nearest(given.metric, COMPARED)}")
    metrics = [COMPARED[given.metric]] if given.metric else list(COMPARED.values())
    page = compare(given.paths, given.by, given.baseline, metrics)
    page += f"\n\nCommand: `{shlex.join(['python', '-m', 'nexttoken', 'compare', *arguments])}`"
    print(page)
    if given.out:
        with whole_file(given.out) as part:
            part.write_text(page + "\n", encoding="utf-8")
        print(f"\nwrote {given.out}")
