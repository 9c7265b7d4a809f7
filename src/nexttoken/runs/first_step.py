"""The first of two steps: the classes that another run finds most probable for a row become its candidates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nexttoken.build import Parts
from nexttoken.errors import UserError, first_five
from nexttoken.inference.candidates import Candidates
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.out_of_fold import RowKey, answers_out_of_fold, row_key
from nexttoken.types import Example, LabelPredictions

Answer = Callable[[RunFolder, list[Example]], LabelPredictions]


@dataclass(frozen=True)
class FirstStep:
    """The answers of the run at `path`: out of fold for rows with a label, by its finished folds for others."""

    path: Path
    classes: tuple[str, ...]
    answer: Answer
    _probs: dict[RowKey, np.ndarray] = field(default_factory=dict, repr=False)

    def __call__(self, examples: Sequence[Example]) -> list[list[int]]:
        """Each example's classes, the most probable first.

        Raises UserError where a row with a label has no out-of-fold answer, or the run has other classes.
        """
        run = RunFolder(self.path)
        if not self._probs:
            answers = answers_out_of_fold(run, self.classes, "candidates.from_run")
            self._probs.update({key: answer.probs for key, answer in answers.items()})
        lacking = [example for example in examples if row_key(example) not in self._probs]
        if labelled := [example.id for example in lacking if example.label is not None]:
            raise UserError(
                f"candidates.from_run={self.path} has no out-of-fold answer for {len(labelled)} rows"
                f" ({first_five(labelled)}); train its other folds first, with the same rows"
            )
        if lacking:
            self._probs.update(zip(map(row_key, lacking), self.answer(run, lacking).probs, strict=True))
        return [np.argsort(-self._probs[row_key(example)], kind="stable").tolist() for example in examples]


def with_first_step(parts: Parts, answer: Answer) -> Parts:
    """The parts with the first step of `candidates.from_run`, if that names a run; `answer` asks a finished run.

    Raises UserError where the run has no finished fold.
    """
    path = parts.settings.candidates.get("from_run")
    if path is None or not isinstance(parts.inference, Candidates):
        return parts
    RunFolder(Path(path)).finished_folds()
    step = FirstStep(Path(path), tuple(parts.task.classes), answer)
    return replace(parts, inference=replace(parts.inference, ranker=step))
