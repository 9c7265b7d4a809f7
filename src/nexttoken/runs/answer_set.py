"""The two kinds of answers, labels and texts, with the same methods: the pipeline treats both alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.metrics.decisions import at_threshold, has_threshold
from nexttoken.metrics.probabilities import log_loss, prior_probs, uniform_log_loss
from nexttoken.models.processes import num_ranks
from nexttoken.runs.fold_rows import labels_of
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.records import save_results
from nexttoken.settings import Settings
from nexttoken.tasks.baselines.characters import CharacterModel
from nexttoken.types import (
    DIALOGUE,
    AnswerLosses,
    Example,
    LabelPredictions,
    Metric,
    OpenTask,
    Task,
    TextPredictions,
)

if TYPE_CHECKING:
    from nexttoken.runs.asking import Asking
    from nexttoken.runs.loaded import LoadedRun

# Keys of metrics.json that are about the rows, and beginnings of those about references: the same for any model.
OF_ROWS = ("task", "dataset", "fold", "trained", "is_published_data", "has_published_scores", "is_quiz", "metric")
REFERENCES = ("num_examples", "uniform_", "best_possible_", "chance_", "prior_", "baseline")
PUBLISHED_ROWS = 50_000  # the competition's own training file has about 57 thousand rows and no known truth


class Labels:
    """Closed answers: class probabilities, averaged over folds."""

    def describe(self, settings: Settings, task: Any, num_rows: int, num_held_out: int) -> dict[str, Any]:
        """Task, data and fold, for metrics.json; `num_rows` counts all folds, `num_held_out` this one."""
        has_published = task.has_published_scores
        is_published = has_published and num_rows > PUBLISHED_ROWS and not task.truth()
        published = {"has_published_scores": has_published, "is_published_data": is_published}
        kind = {"metric": task.metrics[0].name, "is_quiz": getattr(task, "is_quiz", False)}
        return _describe_fold(settings, task) | published | kind | {"num_examples": num_held_out}

    def references(self, task: Any, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """Scores of simple predictors, fitted on the training examples `seen` and scored on the same held-out ones.

        `chance_<metric>`, `prior_<metric>` and `baseline_<metric>` for each metric of the task; `baseline_2_<metric>`
        for its second baseline, and `baselines` has the names. The chance of log loss is `uniform_log_loss`.
        `best_possible_log_loss` is None where the true probabilities are not known. Without held-out examples there are
        none.
        """
        if not held_out:
            return {}
        labels, num_classes, truth = labels_of(held_out), len(task.classes), task.truth()
        num_options = [example.num_options or num_classes for example in held_out]
        known = all(example.id in truth for example in held_out)
        prior = prior_probs(labels_of(seen), num_classes, num_options)
        scores, baselines = score_examples(task.metrics, prior, held_out, "prior_"), task.baselines()
        for place, baseline in enumerate(baselines):
            probs = baseline.fit(seen).predict(held_out)
            scores |= score_examples(task.metrics, probs, held_out, f"{baseline_key(place)}_")
        chances = {m.name: m.chance_level(num_options) for m in task.metrics if m.name != "log_loss"}
        return {
            "uniform_log_loss": uniform_log_loss(num_options),
            "best_possible_log_loss": log_loss(np.array([truth[e.id] for e in held_out]), labels) if known else None,
            **{f"chance_{name}": level for name, level in chances.items() if level is not None},
            **scores,
            "baselines": [getattr(baseline, "name", type(baseline).__name__) for baseline in baselines],
        }

    def score(self, task: Any, predictions: Any, examples: Sequence[Example]) -> dict[str, Any]:
        """The task's metrics, and the share of True in each boolean column of the predictions."""
        shares = {f"share_{name}": float(c.mean()) for name, c in predictions.columns.items() if c.dtype == bool}
        scores = score_examples(task.metrics, predictions.probs, examples, threshold=predictions.threshold)
        return scores | shares | left_out(task.metrics[0], predictions.probs, examples)

    def save(self, fold: FoldFolder, number: Any, task: Any, predictions: Any, examples: Sequence[Example]) -> None:
        """Save the out-of-fold predictions."""
        fold.save_rows(examples, predictions)
        fold.save_oof(predictions, labels_of(examples), number, task.classes)

    def answer(self, run: "LoadedRun", examples: list[Example]) -> LabelPredictions:
        """Predict examples that have been through the run's transforms."""
        return run.answer(examples)

    def finish(self, asking: "Asking", predictions: Any, submission: Path) -> list[dict[str, Any]]:
        """Save a task's results, such as the answers of a quiz, beside the submission; return them, [] for none."""
        run: Any = asking.run
        if results := run.parts.task.results(predictions):
            print(f"results: {save_results(results, run.environment, submission)}")
        return results


class Texts:
    """Open answers: scored by the model's loss on reference answers, and generated by one fold's model."""

    def describe(self, settings: Settings, task: Any, num_rows: int, num_held_out: int) -> dict[str, Any]:
        return _describe_fold(settings, task) | {"answers": "texts", "num_held_out": num_held_out}

    def references(self, task: Any, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """Nats per character of the held-out answers under equally probable characters, and under n-grams.

        Raises UserError where an example has no answer.
        """
        if missing := [example.id for example in (*seen, *held_out) if example.answer is None]:
            raise UserError(f"{len(missing)} training rows have no answer ({first_five(missing)}); give answers")
        if not held_out:
            return {}
        characters = CharacterModel.fit([answer for example in seen for answer in _answers(example)])
        answers = [answer for example in held_out for answer in _answers(example)]
        return {
            "uniform_nll_per_character": math.log(characters.num_symbols),
            "baseline_nll_per_character": characters.nll_per_character(answers),
        }

    def score(self, task: Any, predictions: AnswerLosses, examples: Sequence[Example]) -> dict[str, float]:
        """`log_loss` is the mean loss of the answers' tokens, end tokens included."""
        columns = predictions.nll, predictions.num_tokens, predictions.num_characters
        nll, num_tokens, num_characters = (column.sum().item() for column in columns)
        return {
            "num_examples": len(predictions.ids),
            "log_loss": nll / num_tokens,
            "perplexity": math.exp(min(nll / num_tokens, 700.0)),
            "nll_per_character": nll / max(num_characters, 1),
            "num_answer_tokens": num_tokens,
            "num_answer_characters": num_characters,
        }

    def save(self, fold: FoldFolder, number: Any, task: Any, predictions: Any, examples: Sequence[Example]) -> None:
        fold.save_losses(predictions, examples, number)

    def answer(self, run: "LoadedRun", examples: list[Example]) -> TextPredictions:
        """Generate with one fold's model: texts cannot be averaged. Raises UserError for several processes."""
        if num_ranks() > 1:
            raise UserError("open answers are written by one process; use devices=1, and one command per GPU")
        fold = run.fold(run.changes.fold)
        print(f"written by {fold.path}; texts cannot be averaged over folds, fold=... chooses another")
        return run.generate(fold, [replace(example, answer=None) for example in examples])  # hides the reference

    def finish(self, asking: "Asking", predictions: TextPredictions, submission: Path) -> list[dict[str, Any]]:
        """Print the number of tokens, and the ids of answers that were cut at the maximum length."""
        finished, num_tokens = predictions.columns["finished"], predictions.columns["num_tokens"]
        print(f"{int(num_tokens.sum()):,} tokens, {num_tokens.mean():.1f} an answer")
        if cut := [one for one, is_whole in zip(predictions.ids, finished, strict=True) if not is_whole]:
            what = f"{len(cut)} of {len(finished)} answers reached the maximum length ({first_five(cut)})"
            print(f"{what}; raise generation.max_new_tokens=...")
        return []


def answers_of(task: Task | OpenTask) -> Labels | Texts:
    """Labels for a task with classes, texts for one without."""
    return Labels() if task.classes else Texts()


def without_scores(saved: Mapping[str, Any], has_references: bool = True) -> dict[str, Any]:
    """The parts of a fold's metrics.json on its rows and, if wanted, on references, without those on its model."""
    beginnings = REFERENCES if has_references else ()
    return {key: value for key, value in saved.items() if key in OF_ROWS or key.startswith(beginnings)}


def baseline_key(place: int) -> str:
    """The beginning of a baseline's keys in metrics.json by its place among the task's, from 0."""
    return f"baseline_{place + 1}" if place else "baseline"


def left_out(metric: Metric, probs: np.ndarray, examples: Sequence[Example]) -> dict[str, list[str]]:
    """`left_out`: the values of its tag whose rows the metric cannot score; nothing where it scores all."""
    if not metric.by:
        return {}
    values = [example.tags.get(metric.by, "") for example in examples]
    scores = metric.scores_by(probs, labels_of(examples), values)
    names = [name for name, score in scores.items() if math.isnan(score)]
    return {"left_out": names} if names else {}


def score_examples(
    metrics: Sequence[Metric], probs: np.ndarray, examples: Sequence[Example], prefix: str = "", threshold: float = 0.5
) -> dict[str, float | None]:
    """Each metric's score of `probs` (N, K); None where it cannot be computed, such as an AUC of a single class."""
    labels, scores = labels_of(examples), {}
    for metric in metrics:
        decided = at_threshold(probs, threshold) if has_threshold(metric, probs.shape[1]) else probs
        scores[metric.name] = metric.score(decided, labels, [example.tags.get(metric.by, "") for example in examples])
    return {f"{prefix}{name}": None if math.isnan(score) else score for name, score in scores.items()}


def _describe_fold(settings: Settings, task: OpenTask) -> dict[str, Any]:
    return {
        "task": task.name,
        "dataset": Path(settings.input_dir).resolve().name,
        "fold": settings.fold,
        "trained": settings.trainer.max_epochs > 0,
    }


def _answers(example: Example) -> list[str]:
    """Every utterance of a dialogue's assistant that is learnt, or the one answer of an instruction."""
    answers = [*example.fields.get(DIALOGUE, ())[1::2], example.answer or ""]
    return [
        answer for answer, is_learnt in zip(answers, example.learns or [True] * len(answers), strict=True) if is_learnt
    ]
