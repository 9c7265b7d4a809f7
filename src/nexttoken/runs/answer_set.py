"""What the spine asks of a kind of answers, so that it need not know which one a task has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nexttoken.runs.folder import FoldFolder
from nexttoken.settings import Settings
from nexttoken.types import Example, LabelPredictions, OpenTask, Task, TextPredictions


class Run(Protocol):
    """What a finished run can do: `nexttoken.runs.LoadedRun`."""

    @property
    def environment(self) -> dict[str, Any]: ...

    @property
    def path(self) -> Path: ...

    @property
    def writing_fold(self) -> FoldFolder: ...

    def ask(self, examples: list[Example]) -> LabelPredictions: ...

    def generate(self, fold: FoldFolder, examples: list[Example]) -> TextPredictions: ...


class AnswerSet(Protocol):
    """A closed set of labels, or open texts."""

    def strata(self, examples: Sequence[Example]) -> np.ndarray:
        """(N,) int64: folds have equal shares of each value."""

    def describe(self, settings: Settings, task: Any, num_rows: int, num_held_out: int) -> dict[str, Any]:
        """What was scored; `num_rows` are those of all folds, `num_held_out` those of this one."""

    def references(self, task: Any, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """What the model has to beat, fitted on the rows `seen` in training and scored on the same held-out rows."""

    def score(self, task: Any, predictions: Any, examples: Sequence[Example]) -> dict[str, float]:
        """The task's metrics, `log_loss` among them."""

    def save(self, fold: FoldFolder, number: int, task: Any, predictions: Any, examples: Sequence[Example]) -> None:
        """Keep the out-of-fold predictions."""

    def answer(self, run: Run, examples: list[Example]) -> Any:
        """The predictions of a run for rows that have been through its transforms."""

    def finish(self, run: Run, task: Any, predictions: Any) -> None:
        """What is said and kept once a submission is written."""


def answers_of(task: Task | OpenTask) -> AnswerSet:
    """The one place that decides: a task with classes is answered by labels, one without by texts."""
    from nexttoken.runs.label_answers import Labels
    from nexttoken.runs.text_answers import Texts

    return Labels() if task.classes else Texts()
