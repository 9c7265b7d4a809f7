"""Training rows marked by a judge, for the transform KeepMarked to filter them by."""

from pathlib import Path

import numpy as np

from nexttoken.build import prepare
from nexttoken.commands.compose import compose
from nexttoken.commands.judge.arguments import Arguments
from nexttoken.commands.judge.marking import Judge, marked_row
from nexttoken.errors import UserError
from nexttoken.metrics.marks import write_marks
from nexttoken.types import Example


def mark_data(given: Arguments) -> str:
    """Write the marks of all training rows of `given.data` to `given.out`; return how they are spread."""
    if given.judge is None or given.out is None:
        raise UserError("marking data needs judge= and out=; write judge=output/marks/<name> out=marks.csv")
    judge = Judge.load(given.judge, given.base)
    rows = read_rows(given)
    marks = judge.mark([marked_row(row, given.rubric) for row in rows])
    write_marks(given.out, [row.id for row in rows], marks.probs, marks.lowest)
    counts = np.bincount(np.rint(marks.expected - marks.lowest).astype(np.int64), minlength=marks.probs.shape[1])
    spread = ", ".join(f"{marks.lowest + k}: {count:,}" for k, count in enumerate(counts.tolist()))
    return (
        f"{len(rows):,} rows, mean mark {marks.expected.mean():.2f}; by the nearest whole mark {spread}\n"
        f"wrote {given.out}"
    )


def read_rows(given: Arguments) -> list[Example]:
    """The task's training rows as its files have them, before any transform. Raises UserError where there is none."""
    path = Path(given.data)
    folder = path.parent if path.is_file() else path
    overrides = [f"task={given.task}", f"input_dir='{folder}'"]
    if path.is_file():
        overrides.append(f"task.train_files=['{path.name}']")
    parts, _ = prepare(compose("train", overrides), overrides)
    if not (rows := parts.task.read("train")):
        raise UserError(
            f"{given.data} has no rows to be marked; give an input_dir of task={given.task}, or a file of it"
        )
    if not any(row.answer for row in rows):
        raise UserError(f"task={given.task} has no written answers to be marked; give task=dialogue or task=instruct")
    return rows
