"""Closed answers: class probabilities, averaged over folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nexttoken.data.files import write_json
from nexttoken.runs.answer_set import Run
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.scores import describe, labels_of, score, score_references
from nexttoken.settings import Settings
from nexttoken.types import Example, LabelPredictions, Task


class Labels:
    """The answer set of a `Task`."""

    def strata(self, examples: Sequence[Example]) -> np.ndarray:
        return labels_of(examples)

    def describe(self, settings: Settings, task: Task, num_rows: int, num_held_out: int) -> dict[str, Any]:
        return describe(settings, task, num_rows, num_held_out)

    def references(self, task: Task, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        return score_references(task, seen, held_out)

    def score(self, task: Task, predictions: LabelPredictions, examples: Sequence[Example]) -> dict[str, float]:
        return score(task, predictions, examples)

    def save(
        self, fold: FoldFolder, number: int, task: Task, predictions: LabelPredictions, examples: Sequence[Example]
    ) -> None:
        fold.save_rows(examples, predictions)
        fold.save_oof(predictions, labels_of(examples), number, task.classes)

    def answer(self, run: Run, examples: list[Example]) -> LabelPredictions:
        return run.ask(examples)

    def finish(self, run: Run, task: Task, predictions: LabelPredictions) -> None:
        """result.json with the environment that its seconds depend on, where the task has one."""
        from nexttoken.report.genres import results_table

        if results := task.results(predictions):
            write_json(run.environment, run.path / "environment.json")
            write_json(results, run.path / "result.json")
            print(results_table(results, by="file"))
