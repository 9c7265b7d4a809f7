"""Measure how long the page of a large competition takes: three runs of five folds with made-up answers.

python -m benchmarks.page                 25,000 rows
python -m benchmarks.page rows=4000 out=page.html

The command is a process of its own, timed from its start to its end. Memory is its peak.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from benchmarks.measure import run_python
from benchmarks.page_runs import write_sample_run
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError
from samples.preferences import write_sample

SKILLS = {"better": 1.6, "good": 1.25, "poor": 1.0}


class PageArguments(Arguments):
    rows: Annotated[int, Field(ge=50, le=1_000_000)] = 25_000
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = PageArguments.parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        write_sample(folder / "data", 0, given.rows)
        write_runs(folder / "runs", f"input_dir={folder / 'data'}")
        out = given.out or folder / "page.html"
        command = ["-m", "nexttoken", "page", str(folder / "runs"), f"out={out.absolute()}"]
        status, output, seconds, used = run_python(command, folder / "log.txt")
        if status:
            raise UserError(f"the page was not made: {output[-300:]}; run {' '.join(command)} to see why")
        size, memory = out.stat().st_size / 1e6, used.ru_maxrss / 1024
    what = f"{given.rows:,} rows, {len(SKILLS)} runs of 5 folds"
    print(f"{what}: {seconds:.1f} s, a file of {size:.2f} MB, {memory:.0f} MB of memory")


def write_runs(folder: Path, *task: str) -> None:
    """Runs of five folds of the preference comparison that differ in their learning rate."""
    for seed, (name, skill) in enumerate(SKILLS.items()):
        changes = (f"fit.learning_rate={0.001 * (seed + 1)}",)
        write_sample_run(folder / name, "task=lmsys", *task, skill=skill, seed=seed, changes=changes)


if __name__ == "__main__":
    run(main, __doc__)
