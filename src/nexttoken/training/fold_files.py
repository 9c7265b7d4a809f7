"""The files of a fold: what it learns from, written before its training, and its answers and scores, written after."""

from collections.abc import Mapping
from typing import Any

from nexttoken.build import Parts
from nexttoken.runs.answer_set import answers_of
from nexttoken.runs.fold_rows import FoldData
from nexttoken.runs.folder import FoldFolder, RunFolder, hash_learnt
from nexttoken.runs.teacher import save_soft_labels
from nexttoken.training.loggers import log_scores


def begin_fold(parts: Parts, config: Mapping[str, Any], data: FoldData) -> None:
    """Claim the folder of the fold, and write what it learns from. Raises UserError as `RunFolder.claim` does."""
    settings, solved = parts.settings, data.rows.solved
    learnt_from = hash_learnt(data.examples, [row.example for row in solved])
    fold = RunFolder.of(parts).claim(settings.fold, config, learnt_from, data.folds, settings.overwrite)
    fold.save_counts(data.counted)
    fold.save_solved(solved)
    save_soft_labels(fold, parts, data.rows)


def finish_fold(
    parts: Parts, data: FoldData, fold: FoldFolder, predictions: Any, measured: dict[str, Any], loggers: list
) -> None:
    """Score and save the predictions of the held-out rows, and write metrics.json, which also holds `measured`."""
    answers, held_out = answers_of(parts.task), data.rows.held_out
    scores: dict[str, Any] = {}
    described = answers.describe(parts.settings, parts.task, len(data.examples), len(held_out))
    if held_out:
        scores = answers.score(parts.task, predictions, held_out)
        answers.save(fold, parts.settings.fold, parts.task, predictions, held_out)
    fold.finish(described | scores | measured)
    log_scores(loggers, scores, measured.get("best_step", 0))  # last: a logger's fault costs no training
