"""The two kinds of answers, labels and texts, behind one interface: the pipeline is the same for both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nexttoken.runs.folder import FoldFolder
from nexttoken.settings import Settings
from nexttoken.types import Example, LabelPredictions, OpenTask, Task, TextPredictions


class Run(Protocol):
    """A finished run that predicts: `nexttoken.runs.loaded.LoadedRun`."""

    @property
    def environment(self) -> dict[str, Any]: ...

    @property
    def path(self) -> Path: ...

    @property
    def writing_fold(self) -> FoldFolder: ...

    def answer(self, examples: list[Example]) -> LabelPredictions: ...

    def generate(self, fold: FoldFolder, examples: list[Example]) -> TextPredictions: ...


class AnswerSet(Protocol):
    """A closed set of labels, or open texts."""

    def strata(self, examples: Sequence[Example]) -> np.ndarray:
        """(N,) int64: every fold has an equal share of each value."""

    def describe(self, settings: Settings, task: Any, num_rows: int, num_held_out: int) -> dict[str, Any]:
        """Task, data and fold, for metrics.json; `num_rows` counts all folds, `num_held_out` this one."""

    def references(self, task: Any, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """Scores of simple predictors, fitted on the training examples `seen` and scored on the same held-out ones."""

    def score(self, task: Any, predictions: Any, examples: Sequence[Example]) -> dict[str, float]:
        """The task's metrics, `log_loss` among them."""

    def save(self, fold: FoldFolder, number: int, task: Any, predictions: Any, examples: Sequence[Example]) -> None:
        """Save the out-of-fold predictions."""

    def answer(self, run: Run, examples: list[Example]) -> Any:
        """The run's predictions for examples that have been through its transforms."""

    def finish(self, run: Run, task: Any, predictions: Any) -> None:
        """Print and save what belongs to a submission that is written."""


def answers_of(task: Task | OpenTask) -> AnswerSet:
    """Labels for a task with classes, texts for one without."""
    from nexttoken.runs.label_answers import Labels
    from nexttoken.runs.text_answers import Texts

    return Labels() if task.classes else Texts()
