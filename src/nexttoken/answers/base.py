"""What the spine asks of a kind of answers, so that it need not know which one a task has."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nexttoken.runs import FoldFolder
from nexttoken.settings import Settings
from nexttoken.types import Example

if TYPE_CHECKING:
    from nexttoken.loaded import LoadedRun


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

    def table(self, metrics: Mapping[str, Any]) -> str:
        """One fold's score beside its references; `metrics` is what metrics.json holds."""

    def answer(self, run: "LoadedRun", examples: list[Example]) -> Any:
        """The predictions of a run for rows that have been through its transforms."""

    def finish(self, run: "LoadedRun", task: Any, predictions: Any) -> None:
        """What is said and kept once a submission is written."""
