"""Curates a training set: python -m nexttoken.curate input_dir=... train_transforms=curate_ja out=... [key=value ...].

python -m nexttoken.curate input_dir=input/instruct train_transforms=curate_ja out=input/instruct-curated
python -m nexttoken.curate task=dialogue input_dir=input/dialogues train_transforms=curate_en out=input/dialogues-en

licence=CC-BY-4.0     of the source; else what a LICENSE or README beside it says
skip_faulty=true      leave out lines that cannot be read; they are named and counted
processes=2           that read and judge rows
Everything else is an override as for train.py (task=instruct unless another is named).
Writes train.jsonl, manifest.json and report.md, all of them or none.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexttoken.arguments import run
from nexttoken.curate.arguments import Arguments
from nexttoken.curate.page import notice_of, page
from nexttoken.curate.rows import write_rows
from nexttoken.curate.source import SourceFile, find_licence, source_files, training_rows
from nexttoken.curation.spool import Spool
from nexttoken.curation.step import CHUNK, Step
from nexttoken.curation.stream import curate
from nexttoken.errors import UserError
from nexttoken.files import write_json
from nexttoken.settings import Settings


def main(arguments: Sequence[str]) -> None:
    from nexttoken.checks import check_settings
    from nexttoken.compose import compose
    from nexttoken.parts import make, plain

    given = Arguments.parse(arguments)
    settings = check_settings(Settings, plain(compose("train", given.train_overrides)))
    steps = require_steps(make(settings.train_transforms, "train_transforms"))
    task = make(settings.task, "task")
    source = source_files(task, Path(settings.input_dir))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{given.out.name}.", dir=given.out.parent) as folder, remarks() as read:
        num_rows = sum(file.num_lines for file in source)
        rows = curate(training_rows(task), steps, Path(folder), num_rows, given.processes)
        manifest = describe(settings, given, source, steps, read)
        write(rows, manifest, Path(folder) / "new")
        rows.close()
        os.rename(Path(folder) / "new", given.out)
    print(summary(manifest, given.out))


def require_steps(transforms: dict[str, Any]) -> dict[str, Step]:
    """Raises UserError where there is none, and for a transform that is no curation."""
    if not transforms:
        raise UserError("train_transforms names no step; add train_transforms=curate_ja")
    for name, transform in transforms.items():
        if not isinstance(transform, Step):
            kind = type(transform).__name__
            raise UserError(f"train_transforms.{name} ({kind}) is no step of nexttoken.curation; use curate_ja")
    return transforms


@contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect what reading the task's files logs, such as the faulty lines that were left out."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("nexttoken"), Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def describe(
    settings: Settings, given: Arguments, source: list[SourceFile], steps: dict[str, Step], read: list[str]
) -> dict[str, Any]:
    """The manifest: what was read, which steps with which settings did what, under which licence."""
    reports = {name: step.report() for name, step in steps.items()}
    first, last = (list(reports.values())[index] for index in (0, -1))
    return {
        "licence": given.licence or find_licence(Path(settings.input_dir)),
        "input_dir": settings.input_dir,
        "files": [vars(file) for file in source],
        "task": settings.task,
        "reading": read,
        "rows": {"read": first["kept"] + first["dropped"], "kept": last["kept"]},
        "steps": {name: {"settings": settings.train_transforms[name]} | report for name, report in reports.items()},
    }


def write(rows: Spool, manifest: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    write_rows(rows.rows(CHUNK), folder / "train.jsonl")
    write_json(manifest, folder / "manifest.json")
    (folder / "report.md").write_text(page(manifest), encoding="utf-8")


def summary(manifest: dict[str, Any], out: Path) -> str:
    """A line a step, then what was written."""
    steps = manifest["steps"]
    width = max(map(len, steps))
    lines = [
        f"{name:<{width}}  {step['kept'] + step['dropped']:>9,} -> {step['kept']:>9,}" for name, step in steps.items()
    ]
    lines += [f"notice: {name}: {notice}" for name, step in steps.items() if (notice := notice_of(step))]
    rows = manifest["rows"]
    if not rows["kept"]:
        lines.append(f"notice: no row is left; {out / 'report.md'} says which steps dropped them")
    return "\n".join(
        [*lines, f"wrote {out}: {rows['kept']:,} of {rows['read']:,} rows; licence: {manifest['licence']}"]
    )


if __name__ == "__main__":
    run(main, __doc__)
