"""A judge: a closed run that marks written answers. Also the examples that it is shown, and the marking of data."""

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
    """A run of a marks task; with trainer.max_epochs=0, a model that was not trained to mark."""

    run: LoadedRun
    lowest: int

    @classmethod
    def load(cls, path: Path, base: str | None = None) -> "Judge":
        """Raises UserError for a run whose classes are not marks."""
        run = LoadedRun.load(RunFolder(path), base=base)
        classes = tuple(getattr(run.parts.task, "classes", ()))
        if not classes or not all(name.isdecimal() for name in classes):
            raise UserError(
                f"judge={path} answers {', '.join(classes) or 'with texts'}, not with marks; train one: "
                "python train.py task=marks, or with trainer.max_epochs=0 to use a model as it is"
            )
        return cls(run, int(classes[0]))

    def mark(self, examples: Sequence[Example]) -> Marks:
        """Mark examples of `output_to_mark` or `answer_to_mark`. Raises UserError for a prompt with other fields."""
        predictions = self.run.answer(list(examples))
        place = {row_id: n for n, row_id in enumerate(predictions.ids)}
        probs = predictions.probs[[place[example.id] for example in examples]]
        return Marks(expected_marks(probs, self.lowest), probs, self.lowest)


def output_to_mark(row_id: str, example: Example, output: str, rubric: str) -> Example:
    """An example that shows an output beside the example's answer as the reference.

    `rubric` is used where the example has none.
    """
    texts = _request(example) | {"response": output, "reference": example.answer or ""}
    return mark_example(row_id, texts | {RUBRIC: _join(example, RUBRIC).strip() or rubric})


def answer_to_mark(example: Example, rubric: str) -> Example:
    """An example that shows the answer of a training example, or a whole dialogue."""
    texts = _request(example) | {"response": example.answer or ""}
    if DIALOGUE in example.fields:
        turns = (*example.fields[DIALOGUE], *([example.answer] if example.answer else []))
        texts = {INSTRUCTION: WHOLE_DIALOGUE, "response": transcript(turns)}
    return mark_example(example.id, texts | {RUBRIC: _join(example, RUBRIC).strip() or rubric})


def transcript(turns: Sequence[str]) -> str:
    """`User: ...` and `Assistant: ...` in turn, a line each."""
    return "\n".join(f"{SPEAKERS[place % 2]}: {turn}" for place, turn in enumerate(turns))


def _request(example: Example) -> dict[str, str]:
    """The texts that the answer responds to."""
    if DIALOGUE in example.fields:
        return {INSTRUCTION: transcript(example.fields[DIALOGUE])}
    return {name: _join(example, name) for name in (INSTRUCTION, INPUT)}


def _join(example: Example, field: str) -> str:
    return "\n".join(example.fields.get(field, ()))


def mark_data(given: "JudgeArguments") -> str:
    """Write the marks of all training rows of `given.data` to `given.out`; return their distribution."""
    assert given.judge  # with data=, the arguments are refused without judge= and out=
    assert given.out
    judge = Judge.load(given.judge, given.base)
    examples = read_training_examples(Path(given.data), given.task)
    marks = judge.mark([answer_to_mark(example, given.rubric) for example in examples])
    write_marks(given.out, [example.id for example in examples], marks.probs, marks.lowest)
    counts = np.bincount(np.rint(marks.expected - marks.lowest).astype(np.int64), minlength=marks.probs.shape[1])
    spread = ", ".join(f"{marks.lowest + k}: {count:,}" for k, count in enumerate(counts.tolist()))
    mean = f"{len(examples):,} rows, mean mark {marks.expected.mean():.2f}"
    return f"{mean}; by the nearest whole mark {spread}\nwrote {given.out}"


def read_training_examples(path: Path, task: str) -> list[Example]:
    """The task's training examples before any transform. Raises UserError where there are none with an answer."""
    overrides = [f"task={task}", f"input_dir='{path.parent if path.is_file() else path}'"]
    if path.is_file():
        overrides.append(f"task.train_files=['{path.name}']")
    parts, _ = prepare(compose("train", overrides), overrides)
    examples = parts.task.read("train")
    if not examples:
        raise UserError(f"{path} has no rows to be marked; give an input_dir of task={task}, or a file of it")
    if not any(example.answer for example in examples):
        raise UserError(f"task={task} has no written answers to be marked; give task=dialogue or task=instruct")
    return examples
