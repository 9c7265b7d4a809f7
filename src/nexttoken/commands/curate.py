"""A training set curated by counted steps, and written with its manifest and report.

python -m nexttoken curate input_dir=input/instruct train_transforms=curate_ja out=input/instruct-curated
python -m nexttoken curate task=dialogue input_dir=input/dialogues train_transforms=curate_en out=input/dialogues-en

licence=CC-BY-4.0     of the source; else what a LICENSE or README beside it says
skip_faulty=true      leave out lines that cannot be read; they are named and counted
processes=2           that read and judge rows
limit_rows=1000       a trial on the first rows
Everything else is an override as for train.py (task=instruct unless another is named).
Writes train.jsonl, manifest.json and report.md, all of them or none.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.commands.curate_outputs import notice_of, page, write_rows
from nexttoken.commands.curate_source import SourceFile, find_licence, source_files, training_rows
from nexttoken.commands.entry import compose
from nexttoken.data.files import write_json
from nexttoken.errors import UserError
from nexttoken.settings import Settings
from nexttoken.transforms.curation.spool import Spool
from nexttoken.transforms.curation.step import CHUNK, Step
from nexttoken.transforms.curation.stream import curate

log = logging.getLogger("nexttoken.commands.curate")


class CurateArguments(Arguments):
    out: Annotated[NewPath, Field(examples=["input/<name>"])]
    licence: str = ""
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    skip_faulty: bool | None = None
    overrides: tuple[str, ...] = ()

    @property
    def train_overrides(self) -> list[str]:
        """With the instruction task where none is named."""
        names_task = any(override.startswith("task=") for override in self.overrides)
        faulty = [] if self.skip_faulty is None else [f"task.skip_faulty={self.skip_faulty}"]
        return [*([] if names_task else ["task=instruct"]), *self.overrides, *faulty]


def main(arguments: Sequence[str]) -> None:
    given = CurateArguments.parse(arguments)
    from nexttoken.build import make, plain
    from nexttoken.settings import check_settings

    settings = check_settings(Settings, plain(compose("train", given.train_overrides)))
    steps = require_steps(settings, make(settings.train_transforms, "train_transforms"))
    task = make(settings.task, "task")
    with folder_beside(given.out) as folder, remarks() as read:
        source = source_files(task, Path(settings.input_dir))
        num_rows = sum(file.num_lines for file in source)
        if settings.limit_rows:
            log.info("only the first %d rows are read, for limit_rows=%d", settings.limit_rows, settings.limit_rows)
        given_rows = islice(training_rows(task), settings.limit_rows)
        rows = curate(given_rows, steps, Path(folder), settings.limit_rows or num_rows, given.processes)
        manifest = describe(settings, given, source, steps, read)
        write(rows, manifest, Path(folder) / "new")
        rows.close()
        os.rename(Path(folder) / "new", given.out)
    print(summary(manifest, given.out))


@contextmanager
def folder_beside(out: Path) -> Iterator[str]:
    """A hidden folder that is removed at the end. Raises UserError where nothing can be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise UserError(f"{out.parent} takes no new folder ({error.strerror}); choose another out=...") from None
    with folder as name:
        yield name


def require_steps(settings: Settings, transforms: dict[str, Any]) -> dict[str, Step]:
    """Raises UserError where there is none, for a transform that is no curation, and for what a step cannot do."""
    if settings.transforms:
        raise UserError(f"transforms ({', '.join(settings.transforms)}) are train.py's alone; leave them out here")
    if not transforms:
        raise UserError("train_transforms names no step; add train_transforms=curate_ja")
    for name, transform in transforms.items():
        if not isinstance(transform, Step):
            kind = type(transform).__name__
            raise UserError(
                f"train_transforms.{name} ({kind}) is no step of nexttoken.transforms.curation; use curate_ja"
            )
        transform.check()
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
    settings: Settings, given: CurateArguments, source: list[SourceFile], steps: dict[str, Step], read: list[str]
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
