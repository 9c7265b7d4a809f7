"""Finished folds and runs of closed tasks: the data they were scored on, their metrics, and scores of their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.metrics.decisions import at_threshold, choose_threshold, has_threshold
from nexttoken.metrics.intervals import Rows
from nexttoken.metrics.probabilities import log_losses
from nexttoken.runs.folder import ASKED
from nexttoken.types import Metric

NOT_CLASSES = ["id", "fold", "label", "loss", "group"]  # columns of an out-of-fold table besides its classes


@dataclass(frozen=True, slots=True, order=True)
class Data:
    """The rows that a fold was scored on; scores on different data never share a mean."""

    task: str
    dataset: str
    is_published: bool  # the competition's own rows, which the published scores were made on
    is_quiz: bool = False  # questions with options
    has_published_scores: bool = False  # of its task, on whatever rows
    baselines: tuple[str, ...] = ()  # names of the simple predictors beside it


@dataclass(frozen=True, slots=True)
class Fold:
    """One finished fold of a closed task.

    `metrics` is metrics.json, `scores` are the task's metrics, its own first. `oof` has id, fold, label and one
    probability column per class; `curve` has step, train_loss, dev_log_loss, dev_metric (NaN where the metric is log
    loss) and refit (1 for the second training), or is None. `tags` are the columns of rows.csv that metrics need, in
    the order of `oof`.
    """

    folder: Path
    metrics: dict[str, Any]
    scores: tuple[Metric, ...]
    oof: pd.DataFrame
    curve: pd.DataFrame | None
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.metrics["fold"]

    @property
    def data(self) -> Data:
        return data_of(self.metrics)

    def score(self, metric: Metric) -> float:
        """The fold's own score in metrics.json, else that of its rows; NaN where it cannot be computed."""
        if metric.name in self.metrics:
            saved = self.metrics[metric.name]
            return float("nan") if saved is None else saved
        return Rows(probabilities(self.oof), self.oof["label"].to_numpy(), self.tags.get(metric.by)).score(metric)


@dataclass(frozen=True, slots=True)
class Run:
    """The finished folds of one run folder that share their data, in order."""

    name: str
    folder: Path
    data: Data
    folds: tuple[Fold, ...]

    @property
    def title(self) -> str:
        """The name for people: `a asked swap_averaged` of a run asked in another way, and whether it was trained."""
        trained = [fold.metrics["trained"] for fold in self.folds]
        how = "" if all(trained) else " (partly zero-shot)" if any(trained) else " (zero-shot)"
        return self.name.replace(f"/{ASKED}/", f" {ASKED} ") + how

    @property
    def scores(self) -> tuple[Metric, ...]:
        return self.folds[0].scores

    @property
    def metric(self) -> Metric:
        """The task's own metric, which ranks runs."""
        return self.scores[0]

    def by_fold(self, metric: Metric) -> dict[int, float]:
        """Each fold's score by its number."""
        return {fold.number: fold.score(metric) for fold in self.folds}

    def weighted(self, key: str) -> float | None:
        """The mean of a number in metrics.json over the run's rows; None where a fold does not have it."""
        values = [fold.metrics[key] for fold in self.folds if fold.metrics.get(key) is not None]
        if len(values) < len(self.folds):
            return None
        return float(np.average(values, weights=[fold.metrics["num_examples"] for fold in self.folds]))

    @property
    def tokens_a_row(self) -> float | None:
        """Mean number of prompt tokens that went through the model for a row; None where a fold did not count them."""
        counts = [fold.metrics.get("num_prompt_tokens") for fold in self.folds]
        return None if None in counts else sum(counts) / len(self.oof)  # type: ignore[arg-type]

    @property
    def oof(self) -> pd.DataFrame:
        """All folds' out-of-fold rows, plus `loss`, each row's own log loss."""
        oof = pd.concat([fold.oof for fold in self.folds], ignore_index=True)
        return oof.assign(loss=log_losses(probabilities(oof), oof["label"].to_numpy()))

    def scored(self, metric: Metric) -> Rows:
        """The rows of `oof` in their order, as `metric` takes them.

        Where it depends on a threshold, each fold's is chosen on the rows of the other folds; the only one keeps that
        of its dev rows.
        """
        parts = [probabilities(fold.oof) for fold in self.folds]
        labels = [fold.oof["label"].to_numpy() for fold in self.folds]
        tags = [fold.tags.get(metric.by) for fold in self.folds]
        values = None if any(some is None for some in tags) else [value for some in tags for value in some or ()]
        if has_threshold(metric, parts[0].shape[1]):
            parts = [at_threshold(part, self._threshold(metric, place)) for place, part in enumerate(parts)]
        return Rows(np.concatenate(parts), np.concatenate(labels), values)

    def score(self, metric: Metric) -> float:
        """The metric of all out-of-fold rows; NaN where it cannot be computed."""
        return self.scored(metric).score(metric)

    def with_probs(self, probs: Sequence[np.ndarray]) -> "Run":
        """The run with other out-of-fold probabilities, (N, K) of each fold, and their scores."""
        run = replace(self, folds=tuple(_with_probs(*pair) for pair in zip(self.folds, probs, strict=True)))
        folds = []
        for place, fold in enumerate(run.folds):
            rows, scores = Rows(probs[place], fold.oof["label"].to_numpy()), dict[str, Any]()
            for metric in self.scores:
                decided = rows
                if has_threshold(metric, probs[place].shape[1]):
                    scores["threshold"] = run._threshold(metric, place)
                    decided = replace(rows, probs=at_threshold(rows.probs, scores["threshold"]))
                score = replace(decided, tags=fold.tags.get(metric.by)).score(metric)
                scores[metric.name] = None if np.isnan(score) else score
            folds.append(replace(fold, metrics={**fold.metrics, **scores}))
        return replace(run, folds=tuple(folds))

    def _threshold(self, metric: Metric, place: int) -> float:
        others = [fold.oof for other, fold in enumerate(self.folds) if other != place]
        if not others:
            return self.folds[place].metrics.get("threshold", 0.5)
        rows = pd.concat(others)
        return choose_threshold(metric, probabilities(rows), rows["label"].to_numpy())


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Runs on the same data, the best first by their task's metric, then by log loss."""
    log_loss = next(metric for metric in runs[0].scores if metric.name == "log_loss")
    return sorted(runs, key=lambda run: (rank_key(run, runs[0].metric), rank_key(run, log_loss)))


def rank_key(run: Run, metric: Metric) -> float:
    """The mean over the folds, lower for better ones; infinite where no fold has the metric."""
    known = [score for score in run.by_fold(metric).values() if not np.isnan(score)]
    return float(np.mean(known)) * (-1 if metric.higher_is_better else 1) if known else float("inf")


def data_of(metrics: Mapping[str, Any]) -> Data:
    """The data that metrics.json describes; earlier versions told a quiz by its MAP@3."""
    is_quiz = metrics.get("is_quiz", metrics.get("map_at_3") is not None)
    has_published = metrics.get("has_published_scores", not is_quiz)
    is_published = has_published and metrics["is_published_data"]
    earlier = metrics.get("baseline", "option baseline" if is_quiz else "length/overlap baseline")
    baselines = metrics.get("baselines", [earlier])
    if not isinstance(baselines, list) or not all(isinstance(name, str) for name in baselines):
        raise UserError(f"metrics.json of {metrics['dataset']}, fold {metrics['fold']}, has no names of baselines")
    if not all(isinstance(value, bool) for value in (is_quiz, has_published)):
        raise UserError(f"metrics.json of {metrics['dataset']}, fold {metrics['fold']}, has no kind of task")
    return Data(metrics["task"], metrics["dataset"], is_published, is_quiz, has_published, tuple(baselines))


def classes_of(oof: pd.DataFrame) -> list[str]:
    """The class columns of an out-of-fold table."""
    return [str(column) for column in oof if column not in NOT_CLASSES]


def _with_probs(fold: Fold, probs: np.ndarray) -> Fold:
    return replace(fold, oof=fold.oof.assign(**dict(zip(classes_of(fold.oof), probs.T, strict=True))))


def probabilities(oof: pd.DataFrame) -> np.ndarray:
    """The class columns of an out-of-fold table as (N, K) float64."""
    return oof.drop(columns=NOT_CLASSES, errors="ignore").to_numpy(np.float64)
