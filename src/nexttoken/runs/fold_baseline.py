"""A baseline of the task that takes part in a blend as a run does: for each fold fitted on the other folds' rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nexttoken.data.folds import Folds, load_folds
from nexttoken.data.targets import make
from nexttoken.errors import UserError
from nexttoken.runs.blend import BASELINES
from nexttoken.runs.folder import RunFolder
from nexttoken.types import Baseline, Example, LabelPredictions


@dataclass(frozen=True)
class FoldBaseline:
    """The baseline of this name; `numbers` are the folds that the blend's runs have finished."""

    name: str
    task: Any
    folds: Folds
    numbers: tuple[int, ...]
    _rows: dict[str, Example] = field(default_factory=dict, repr=False)

    def answer(self, examples: Sequence[Example]) -> LabelPredictions:
        """The mean of the folds' probabilities, for rows that no fold has learnt."""
        probs = np.mean([baseline.predict(examples) for _, baseline in self._fitted], axis=0)
        return LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": np.zeros(len(examples))})

    def out_of_fold(self, ids: Mapping[int, Sequence[str]]) -> list[np.ndarray]:
        """Each fold's probabilities (N, K) for the rows of these ids, by the baseline that has not learnt the fold."""
        return [baseline.predict([self._row(one) for one in ids[number]]) for number, baseline in self._fitted]

    @cached_property
    def _fitted(self) -> list[tuple[int, Baseline]]:
        """Each fold's number and its baseline, fitted once however often rows are answered."""
        baselines = self.task.baselines()
        if (place := BASELINES.index(self.name)) >= len(baselines):
            known = ", ".join(BASELINES[: len(baselines)])
            raise UserError(f"the task {self.task.name} has no {self.name}; known: {known}")
        pairs = [*zip(self.folds.ids, self.folds.folds, strict=True)]
        rows = {number: [self._row(one) for one, fold in pairs if fold != number] for number in self.numbers}
        return [(number, self.task.baselines()[place].fit(learnt)) for number, learnt in rows.items()]

    def _row(self, row_id: str) -> Example:
        """The training row of this id. Raises UserError where the data lacks it, or has two."""
        if not self._rows:
            examples = self.task.read("train")
            self._rows.update((example.id, example) for example in examples)
            if len(self._rows) < len(examples):
                raise UserError(f"{self.name}: several training rows share an id, which folds.csv cannot tell apart")
        if row_id not in self._rows:
            raise UserError(f"{self.name} needs the rows that the runs were trained on, and row {row_id} is not there")
        return self._rows[row_id]


def baseline_of(name: str, run: RunFolder, input_dir: str | None = None) -> FoldBaseline:
    """A baseline of the run's task, with the run's folds."""
    folds = run.finished_folds()
    node = folds[0].config()["task"] | ({"input_dir": input_dir} if input_dir else {})
    numbers = tuple(int(fold.number) for fold in folds)
    return FoldBaseline(name, make(node, "task"), load_folds(run.path / "folds.csv"), numbers)
