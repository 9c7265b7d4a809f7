"""Finished runs asked in another way than they were trained with: the answers to their held-out rows, and the scores.

They lie in output/<task>/<name>/asked/<way>/ as a run's own do: folds.csv, and fold<k>/ with config.yaml data.sha256
inference.json rows.csv oof.csv metrics.json. The weights that answered are those of the run's fold<k>; training that
fold again removes its answers in every way.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError
from nexttoken.models.processes import from_first, is_first
from nexttoken.runs.answer_set import answers_of, without_scores
from nexttoken.runs.asking import Asking
from nexttoken.runs.config import asked_config
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.read import read_run
from nexttoken.runs.scored_runs import Run


def asked_runs(path: Path) -> list[Run]:
    """The run in `path`, then the same run asked in each other way that `ask` has finished; of closed tasks.

    A way's `Run` has the run's rows and labels, its own probabilities and metrics, and the way's folder, which every
    command takes as a run. Raises UserError as `read_run` does.
    """
    return [read_run(path), *(read_run(way.path) for way in RunFolder(path).ways)]


def refuse_unscored(asking: Asking, again: bool = False) -> None:
    """Raise UserError where held-out rows give a way no score: a final model, open answers, a gate chosen on them."""
    run = asking.run
    if not run.parts.task.classes:
        raise UserError(f"{run.path} answers with texts: ask is for labels; see python -m nexttoken judge {run.path}")
    for fold in run.folds:
        run.held_out(fold)  # of the final model and of other data there is none
    if asking.has_gate and (again or not asking.scored):
        raise UserError(
            f"the thresholds of {run.path / 'gate.json'} were chosen on these rows: python -m nexttoken gate"
            f" run={run.path} answers them with thresholds of the other folds"
        )


def unasked(asking: Asking, again: bool = False) -> list[int]:
    """The numbers of the run's folds whose held-out rows were not asked in this way since they were trained."""
    if not asking.way:
        return []  # training itself asked them
    folds = [asking.folder.fold(fold.number) for fold in asking.run.folds]
    return from_first(lambda: [int(fold.number) for fold in folds if again or not fold.is_finished or fold.is_outdated])


def ask_held_out(asking: Asking, number: int) -> None:
    """Ask one fold's held-out rows in the way of `asking`, and save its answers and scores in the way's folder.

    A killed call goes on from the answers it has. Raises UserError where the data is not the fold's, or another process
    asks.
    """
    fold, into = asking.run.fold(number), asking.folder.fold(number)
    if not is_first():
        answer_held_out(asking, fold, into)
        return
    with into.lock.held():
        claim(asking, fold)
        predictions, inference, measured = answer_held_out(asking, fold, into)
        into.save_state(inference.state())
        save_answers(asking, fold, predictions, measured)


def claim(asking: Asking, fold: FoldFolder) -> None:
    """Make the way's folder of this fold ready: new, gone on with, or anew where it was finished."""
    run, into = asking.run, asking.folder.fold(fold.number)
    config, data_hash = asked_config(fold.config(), run.parts.settings), (fold.path / "data.sha256").read_text()
    folds = load_folds(run.path / "folds.csv")
    asking.folder.claim(fold.number, config, data_hash, folds, overwrite=into.is_finished)


def save_answers(asking: Asking, fold: FoldFolder, predictions: Any, measured: Mapping[str, Any]) -> None:
    """Save the answers to a fold's held-out rows in the way of `asking`, then the scores with the counts `measured`."""
    run, into, saved = asking.run, asking.folder.fold(fold.number), fold.metrics()
    task, examples, answers = run.parts.task, run.held_out(fold), answers_of(run.parts.task)
    if "threshold" in saved:
        predictions = replace(predictions, threshold=saved["threshold"])
    answers.save(into, int(fold.number), task, predictions, examples)
    made_by = {"answered_by": fold.training_id, "asked": asking.way}
    into.finish({**without_scores(saved), **answers.score(task, predictions, examples), **made_by, **measured})


def answer_held_out(asking: Asking, fold: FoldFolder, into: FoldFolder) -> tuple[Any, Any, dict[str, Any]]:
    """The predictions of a fold's held-out rows, the inference that made them, and counts for metrics.json."""
    from nexttoken.engine.journal import JournalFolder

    start = time.monotonic()
    examples, answerer = asking.run.held_out(fold), asking.run.answerer(fold)
    inference = asking.run.inference(fold, examples)
    answerer.reset_counts()
    answerer.journals = JournalFolder(into.journals, fold.training, f"fold {fold.number}: ")
    asked = time.monotonic()
    predictions: Any = inference(examples, answerer)
    end = time.monotonic()
    speed = {"seconds": end - start, "rows_per_second": len(examples) / max(end - asked, 1e-9)}
    return predictions, inference, dict(answerer.counts) | answerer.environment | speed
