"""The models of a timed prediction: rows are asked by one fold after the other, with no question asked twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.inference.once import AnsweredOnce
from nexttoken.runs.fold_baseline import FoldBaseline
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.timed.passes import Step
from nexttoken.runs.timed.row_answers import Source
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example


@dataclass
class RowAsker:
    """Asks rows of `examples`, which have been through the transforms of `run`; journals lie in `folder`."""

    run: LoadedRun
    examples: Sequence[Example]
    folder: Path | None

    def __post_init__(self) -> None:
        self._asked: dict[tuple[str, int], AnsweredOnce] = {}  # by training and the length of a prompt
        self._inferences: dict[int, dict[int | str, Inference]] = {}  # by the run's id and the fold's number
        self._journals: dict[str, Any] = {}  # by training; each file is read once for all slices
        self._in_memory: LoadedRun | None = None

    def load(self, step: Step) -> None:
        """Load the model of a step's first fold."""
        if isinstance(step.run, LoadedRun):
            self._keep_in_memory(step.run)
            step.run.answerer(step.folds[0])

    def release(self) -> None:
        """Free the memory of the models."""
        if self._in_memory is not None:
            self._in_memory.release()

    def ask(self, step: Step, rows: np.ndarray) -> list[tuple[Source, np.ndarray]]:
        """The answers (n, K) to rows of these numbers by each source of the step, calibrated as the run is.

        Raises UserError where the run's transforms leave other rows.
        """
        examples = [self.examples[row] for row in rows]
        found = list(self._answer(step, examples))
        if any(answers.ids != tuple(example.id for example in examples) for answers, _ in found):
            raise UserError(f"{step.title}: its transforms leave other rows; within= needs runs that keep all rows")
        return [(source, probs) for source, (_, probs) in zip(step.sources, found, strict=True)]

    def _answer(self, step: Step, examples: list[Example]) -> Iterator[tuple[Any, np.ndarray]]:
        run = step.run
        if isinstance(run, FoldBaseline):
            found = run.answer(examples)
            yield found, found.probs
            return
        own = examples if run is self.run or step.is_extra else apply_transforms(examples, run.parts.transforms)
        inferences = self._inferences.setdefault(id(run), {})
        for fold in step.folds:
            once = self._asking_once(run, fold)
            if fold.number not in inferences:
                inferences[fold.number] = run.inference(fold, self.examples)
            found = inferences[fold.number](own, once)
            yield found, run.calibration.scaling(found.probs) if run.calibration else found.probs

    def _asking_once(self, run: LoadedRun, fold: FoldFolder) -> AnsweredOnce:
        """The fold's answerer, which remembers what it was asked before, also in another way."""
        from nexttoken.engine.journal import JournalFolder

        answerer, key = run.answerer(fold), (fold.training, run.parts.settings.max_tokens)
        answerer.journals = self._journals.setdefault(fold.training, JournalFolder(self.folder, fold.training, None))
        before = self._asked.get(key)
        same = next((one for one in self._asked.values() if one.answer is answerer), None)  # nothing was trained
        self._asked[key] = same or AnsweredOnce(answerer, before.known if before else {})
        return self._asked[key]

    def _keep_in_memory(self, run: LoadedRun) -> None:
        """Free the models of another run, but for those that this one shares."""
        before, self._in_memory = self._in_memory, run
        if before is not None and before is not run and not run.share_models(before):
            before.release()
