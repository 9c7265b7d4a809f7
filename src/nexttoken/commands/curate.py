"""Clean a training set in counted steps, and write it with a manifest and a report.

python -m nexttoken curate input_dir=input/instruct train_transforms=curate_ja out=input/instruct-curated
python -m nexttoken curate task=dialogue input_dir=input/dialogues train_transforms=curate_en out=input/dialogues-en

Arguments:
  input_dir=...           folder of the training set
  train_transforms=...    the steps: curate_ja, curate_en or other steps of transforms.curation
  out=...                 new folder for train.jsonl, manifest.json and report.md; all of them are written, or none
  task=instruct           task whose files are read: instruct or dialogue
  licence=...             licence of the training set, such as CC-BY-4.0 (default: read from its LICENSE or README file)
  skip_faulty=true        leave out lines that cannot be read; they are listed and counted
  processes=2             number of processes that read and clean rows (1 to 64)
  limit_rows=...          number of rows to read, for a trial on the first ones (default: all)
  key=value ...           any other setting of train.py
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.commands.curate_files import counts_table, describe_files, find_licence, notice_of, page, write_rows
from nexttoken.commands.entry import compose_settings
from nexttoken.data.files import write_json
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError
from nexttoken.report.terminal import show
from nexttoken.settings import Settings
from nexttoken.transforms.curation.step import Step
from nexttoken.transforms.curation.stream import curate

log = logging.getLogger("nexttoken.commands.curate")


class CurateArguments(Arguments):
    out: Annotated[NewPath, Field(examples=["input/<name>"])]
    licence: str = ""
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    skip_faulty: bool | None = None
    task: str = "instruct"
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    given = CurateArguments.parse(arguments)
    from nexttoken.data.targets import make

    faulty = [] if given.skip_faulty is None else [f"task.skip_faulty={given.skip_faulty}"]
    settings = compose_settings([f"task={given.task}", *given.overrides, *faulty])
    steps = require_steps(settings, make(settings.train_transforms, "train_transforms"))
    task, limit = make(settings.task, "task"), settings.limit_rows
    with scratch_folder(given.out) as folder, log_messages() as messages:
        new = folder / "new"
        files = describe_files(task, Path(settings.input_dir))
        if limit:
            log.info("only the first %d rows are read, for limit_rows=%d", limit, limit)
        source = task.stream("train") if hasattr(task, "stream") else iter(task.read("train"))
        num_rows = limit or sum(file["num_lines"] for file in files)
        rows = curate(islice(source, limit), steps, folder, num_rows, given.processes)
        reports = {name: step.report() for name, step in steps.items()}
        first, last = (list(reports.values())[place] for place in (0, -1))
        manifest = {
            "licence": given.licence or find_licence(Path(settings.input_dir)),
            "input_dir": settings.input_dir,
            "files": files,
            "task": settings.task,
            "reading": messages.getvalue().splitlines(),
            "rows": {"read": first["kept"] + first["dropped"], "kept": last["kept"]},
            "steps": {name: {"settings": settings.train_transforms[name]} | one for name, one in reports.items()},
        }
        new.mkdir()
        write_rows(rows.rows(), new / "train.jsonl")
        write_json(manifest, new / "manifest.json")
        (new / "report.md").write_text(page(manifest), encoding="utf-8")
        rows.close()
        put_in_place(new, given.out)
    show(summary(manifest, given.out))


def require_steps(settings: Settings, transforms: dict[str, Any]) -> dict[str, Step]:
    """Raises UserError for no step, for a transform that is not a curation step, and for wrong settings of a step."""
    if settings.transforms:
        raise UserError(f"transforms ({', '.join(settings.transforms)}) are train.py's alone; leave them out here")
    if not transforms:
        raise UserError("train_transforms names no step; add train_transforms=curate_ja")
    for name, transform in transforms.items():
        if not isinstance(transform, Step):
            named = f"train_transforms.{name} ({type(transform).__name__})"
            raise UserError(f"{named} is no step of nexttoken.transforms.curation; use curate_ja")
        transform.check()
    return transforms


@contextmanager
def log_messages() -> Iterator[StringIO]:
    """Collect the lines that reading the task's files logs, such as the faulty lines that were left out."""
    logger, messages = logging.getLogger("nexttoken"), StringIO()
    handler, level = logging.StreamHandler(messages), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def summary(manifest: dict[str, Any], out: Path) -> str:
    """The counts of each step, the steps' notices, and the number of rows written."""
    steps, rows = manifest["steps"], manifest["rows"]
    lines = [counts_table(steps)]
    lines += [f"notice: {name}: {notice}" for name, step in steps.items() if (notice := notice_of(step))]
    if not rows["kept"]:
        lines.append(f"notice: no row is left; {out / 'report.md'} says which steps dropped them")
    lines.append(f"wrote {out}: {rows['kept']:,} of {rows['read']:,} rows; licence: {manifest['licence']}")
    return "\n".join(lines)
