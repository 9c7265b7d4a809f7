"""Answers as a judge is shown them, and the marks that it gives: the closed readout with another prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.build import prepare
from nexttoken.commands.entry import compose
from nexttoken.errors import UserError
from nexttoken.metrics.marks import expected_marks
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.tasks.marks import mark_example, write_marks
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

if TYPE_CHECKING:
    from nexttoken.commands.judge import JudgeArguments

RUBRIC = "rubric"
SPEAKERS = ("User", "Assistant")
WHOLE_DIALOGUE = "A conversation between a user and an assistant. Mark the assistant's part."


@dataclass(frozen=True)
class Marks:
    """Of N answers: the expected marks (N,), and probabilities (N, K) of the marks `lowest`, `lowest` + 1, ..."""

    expected: np.ndarray
    probs: np.ndarray
    lowest: int

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """mark, and p<mark> for each mark."""
        return {"mark": self.expected} | {f"p{self.lowest + k}": column for k, column in enumerate(self.probs.T)}


@dataclass(frozen=True)
class Judge:
    """A run of a marks task that is asked for marks; a model as it came is a run with trainer.max_epochs=0."""

    run: LoadedRun
    lowest: int

    @classmethod
    def load(cls, path: Path, base: str | None = None) -> "Judge":
        """Raises UserError for a run that does not give marks."""
        run = LoadedRun.load(RunFolder(path), base=base)
        classes = tuple(getattr(run.parts.task, "classes", ()))
        if not classes or not all(name.isdecimal() for name in classes):
            raise UserError(
                f"judge={path} answers {', '.join(classes) or 'with texts'}, not with marks; train one: "
                "python train.py task=marks, or with trainer.max_epochs=0 to ask a model as it is"
            )
        return cls(run, int(classes[0]))

    def mark(self, examples: Sequence[Example]) -> Marks:
        """Mark examples of `asked` or `marked_row`. Raises UserError for a prompt that asks for other fields."""
        predictions = self.run.answer(list(examples))
        row = {row_id: place for place, row_id in enumerate(predictions.ids)}
        probs = predictions.probs[[row[example.id] for example in examples]]
        return Marks(expected_marks(probs, self.lowest), probs, self.lowest)


def asked(row_id: str, example: Example, output: str, rubric: str) -> Example:
    """An output to `example` as a row to be marked, with the wanted answer as the reference.

    `rubric` stands in where the row has none of its own.
    """
    texts = _task_of(example) | {"response": output, "reference": example.answer or ""}
    return mark_example(row_id, texts | {RUBRIC: _rubric_of(example) or rubric})


def marked_row(example: Example, rubric: str) -> Example:
    """A training row to be marked: a whole dialogue as the response, or an answer to its instruction."""
    if DIALOGUE in example.fields:
        turns = (*example.fields[DIALOGUE], *([example.answer] if example.answer else []))
        texts = {INSTRUCTION: WHOLE_DIALOGUE, "response": said(turns)}
    else:
        texts = _task_of(example) | {"response": example.answer or ""}
    return mark_example(example.id, texts | {RUBRIC: _rubric_of(example) or rubric})


def said(turns: Sequence[str]) -> str:
    """`User: ...` and `Assistant: ...` in turn, a line each."""
    return "\n".join(f"{SPEAKERS[place % 2]}: {turn}" for place, turn in enumerate(turns))


def _task_of(example: Example) -> dict[str, str]:
    if DIALOGUE in example.fields:
        return {INSTRUCTION: said(example.fields[DIALOGUE])}
    return {name: "\n".join(example.fields.get(name, ("",))) for name in (INSTRUCTION, INPUT)}


def _rubric_of(example: Example) -> str:
    return "\n".join(example.fields.get(RUBRIC, ("",))).strip()


def mark_data(given: "JudgeArguments") -> str:
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


def read_rows(given: "JudgeArguments") -> list[Example]:
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
