"""Compare variants of one setting on the same rows, folds and seeds, with confidence intervals.

python -m nexttoken compare output/lmsys by=head            runs that differ in the head and in nothing else
python -m nexttoken compare output/lmsys by=adapter.r       any key of a run's config.yaml
python -m nexttoken compare output/lmsys by=head,fit.learning_rate     each head at its own rate

Arguments:
  path ...        run folders, or folders of runs
  by=...          the setting that differs; several that differ together with commas between
  baseline=...    variant that the others are compared with, or a part of its name (default: the first)
  metric=...      compare by this metric only, such as log_loss or auc (default: the task's own, log loss and accuracy)
  out=FILE.md     also write the tables to this file
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.data.files import write_text
from nexttoken.metrics.named import metric_named
from nexttoken.report.compare import compare
from nexttoken.report.terminal import show


class CompareArguments(Arguments):
    paths: tuple[Path, ...]
    by: str
    baseline: str | None = None
    metric: str | None = None
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = CompareArguments.parse(arguments)
    metrics = [metric_named(given.metric)] if given.metric is not None else []
    page = compare(given.paths, given.by, given.baseline, metrics)
    command = f"Command: `{shlex.join(['python', '-m', 'nexttoken', 'compare', *arguments])}`"
    show(page)
    print(f"\n{command}")
    if given.out:
        write_text(f"{page}\n\n{command}", given.out)
        print(f"\nwrote {given.out}")
