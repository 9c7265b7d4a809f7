"""Closed answers: class probabilities, averaged over folds, and the scores and references of a fold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.metrics.probabilities import log_loss, prior_log_loss, uniform_log_loss
from nexttoken.runs.answer_set import Run
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.records import save_results
from nexttoken.settings import Settings
from nexttoken.types import Example, LabelPredictions, Task

PUBLISHED_ROWS = 50_000  # the competition's own training file has about 57 thousand rows and no known truth


class Labels:
    """The answer set of a `Task`."""

    def strata(self, examples: Sequence[Example]) -> np.ndarray:
        return labels_of(examples)

    def describe(self, settings: Settings, task: Task, num_rows: int, num_held_out: int) -> dict[str, Any]:
        return {
            "task": task.name,
            "dataset": Path(settings.input_dir).resolve().name,
            "has_published_scores": task.has_published_scores,
            "is_published_data": task.has_published_scores and num_rows > PUBLISHED_ROWS and not task.truth(),
            "fold": settings.fold,
            "trained": settings.trainer.max_epochs > 0,
            "num_examples": num_held_out,
        }

    def references(self, task: Task, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """Chance, the prior, the baseline and, where the truth is known, the best possible score.

        `chance_<metric>` and `baseline_<metric>` for each of the task's metrics; the chance of log loss is
        `uniform_log_loss`.
        """
        labels, num_classes, truth = labels_of(held_out), len(task.classes), task.truth()
        num_options = [example.num_options or num_classes for example in held_out]
        known = all(example.id in truth for example in held_out)
        baseline = task.baseline().fit(seen).predict(held_out)
        chances = {m.name: m.chance_level(num_options) for m in task.metrics if m.name != "log_loss"}
        return {
            "uniform_log_loss": uniform_log_loss(num_options),
            "prior_log_loss": prior_log_loss(labels_of(seen), labels, num_classes, num_options),
            "best_possible_log_loss": log_loss(np.array([truth[e.id] for e in held_out]), labels) if known else None,
            **{f"chance_{name}": level for name, level in chances.items() if level is not None},
            **{f"baseline_{metric.name}": metric.score(baseline, labels) for metric in task.metrics},
        }

    def score(self, task: Task, predictions: LabelPredictions, examples: Sequence[Example]) -> dict[str, float]:
        """The task's metrics, and the share of True in each boolean column of the predictions."""
        labels = labels_of(examples)
        shares = {f"share_{name}": float(c.mean()) for name, c in predictions.columns.items() if c.dtype == bool}
        return {metric.name: metric.score(predictions.probs, labels) for metric in task.metrics} | shares

    def save(
        self, fold: FoldFolder, number: int, task: Task, predictions: LabelPredictions, examples: Sequence[Example]
    ) -> None:
        fold.save_rows(examples, predictions)
        fold.save_oof(predictions, labels_of(examples), number, task.classes)

    def answer(self, run: Run, examples: list[Example]) -> LabelPredictions:
        return run.answer(examples)

    def finish(self, run: Run, task: Task, predictions: LabelPredictions) -> None:
        """Save and print the results of a task that has some, such as the answers of a quiz."""
        from nexttoken.report.by_tag import results_table

        if results := task.results(predictions):
            save_results(results, run.environment, run.path)
            print(results_table(results, by="file"))


def labels_of(examples: Sequence[Example]) -> np.ndarray:
    """(N,) int64."""
    return np.array([example.label for example in examples], dtype=np.int64)
