"""Training and prediction from top to bottom: read, split, fit, predict, score, save; and read, predict, submit."""

import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from nexttoken.build import Parts, plain, prepare
from nexttoken.data.checked_settings import check_settings
from nexttoken.data.files import to_yaml
from nexttoken.data.packages import require_packages
from nexttoken.data.targets import check_targets
from nexttoken.errors import UserError, counted
from nexttoken.models.hub import find_model
from nexttoken.models.processes import all_devices, from_first, is_first, launch
from nexttoken.progress import UNANSWERED, Deadline
from nexttoken.report.terminal import show
from nexttoken.report.training import report_finished, show_run
from nexttoken.runs.answer_set import answers_of
from nexttoken.runs.first_step import with_first_step
from nexttoken.runs.fold_rows import FoldData, choose_rows, split, with_solved_examples
from nexttoken.runs.folder import FoldFolder, RunFolder, flatten, latest_run
from nexttoken.runs.ledger import submission_path
from nexttoken.runs.machines import refuse_differences, refuse_other_folds, refuse_separate, same_rows, share_fold
from nexttoken.runs.made_with import KEY, base_weights, made_with
from nexttoken.runs.pseudo_labels import with_pseudo_labels
from nexttoken.runs.starting_run import with_starting_run
from nexttoken.runs.sweep_job import SweepJob
from nexttoken.runs.teacher import with_teacher
from nexttoken.settings import PredictSettings
from nexttoken.tasks.row_keys import log_unseen
from nexttoken.tasks.test_rows import warn_of_test_rows, without_remarks
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions, Split

if TYPE_CHECKING:
    from nexttoken.runs.asking import Asking
    from nexttoken.runs.loaded import LoadedRun
    from nexttoken.training.learner import Learner
    from nexttoken.training.probe_learner import ProbeLearner


def train(cfg: DictConfig, overrides: Sequence[str] = (), job: SweepJob | None = None) -> float:
    """Train a fold, score it on its held-out examples, save it and return the loss that a sweep minimises.

    That is the loss on the dev rows, so that the held-out rows are scored once; on the held-out rows without dev rows.
    With fold=all nothing is held out: a final model on all rows, without a score (NaN without dev rows).
    """
    cfg.trainer.devices = all_devices(cfg.trainer.devices)
    parts, config = prepare(cfg, overrides)
    if job:
        parts = job.in_known_run(parts, config)
    fold = fit_fold(parts, config, overrides, job)
    return report_finished(parts, fold, config, overrides) if is_first() else math.nan


def fit_fold(
    parts: Parts, config: dict[str, Any], overrides: Sequence[str] = (), job: SweepJob | None = None
) -> FoldFolder:
    """Train the fold of a checked configuration and save it, unless it is finished; return its folder.

    `config` is what config.yaml will hold. Of several processes the first one saves. Raises NeedsOwnProcess for a `job`
    that a sweep has to start as a process of its own.
    """
    start, settings = time.monotonic(), parts.settings
    deadline = Deadline(settings.within) if settings.within else None
    if settings.model.name_or_path is not None:
        find_model(settings.model.name_or_path)  # a wrong path is refused before the rows are read
    parts = with_first_step(parts, ask_run)
    if settings.trainer.accelerator == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks for GPUs
    fold = RunFolder.of(parts).fold(settings.fold)
    share_fold(fold)
    if fold.is_finished and not settings.overwrite:
        return fold
    if is_first():
        fold.lock.refuse_held()
    if job:
        job.refuse_unfit_process(settings)
    launch(settings.trainer.devices)
    parts, data = read_fold(parts, config)
    show_run(parts, config, data.rows.sizes, data.folds.number, fold, overrides)
    references = answers_of(parts.task).references(parts.task, data.rows.learnt, data.rows.held_out)
    learner = load_learner(parts, data, fold)
    facts = made_with() | base_weights(parts.settings) if is_first() else {}
    if deadline:
        deadline.refuse_over("the training began")
    from nexttoken.training.fold_files import begin_fold, finish_fold  # needs torch, as the learner does
    from nexttoken.training.loggers import opened_loggers, score_names
    from nexttoken.training.train_and_predict import train_and_predict

    with fold.lock.held() if is_first() else nullcontext():
        if from_first(lambda: fold.is_finished) and not settings.overwrite:  # by another command, meanwhile
            return fold
        if is_first():
            begin_fold(parts, config, data)
        nodes, names = settings.logger if is_first() else {}, score_names(parts.task) if data.rows.held_out else ()
        with opened_loggers(nodes, fold.path, flatten(config), names) as loggers:
            predictions, measured = train_and_predict(parts, learner, data.rows, fold, loggers, deadline)
            if is_first():
                measured |= {"seconds": time.monotonic() - start, KEY: facts}
                finish_fold(parts, data, fold, predictions, references | measured, loggers)
    return fold


def read_fold(parts: Parts, config: dict[str, Any]) -> tuple[Parts, FoldData]:
    """The rows of the fold, and the parts with what other runs give it: weights to begin from, and labels."""
    counts: dict[str, Any] = {}
    examples = read(parts, "train", counts)
    if is_first():
        warn_of_test_rows(parts.task)
    refuse_differences({"the settings": to_yaml(config)})
    folds = split(parts, same_rows(examples))
    rows = choose_rows(parts, examples, folds)
    if parts.settings.test_examples:
        with without_remarks():
            rows = with_solved_examples(rows, parts.task, read(parts, "test"), parts.settings.limit_rows)
    parts = with_teacher(with_starting_run(parts, rows.held_out), rows, folds)
    return with_pseudo_labels(parts, rows, examples), FoldData(examples, folds, rows, counts)


def predict(cfg: DictConfig, job: SweepJob | None = None) -> Path:
    """Predict the test examples with a run's folds, write a validated submission and return its path."""
    from nexttoken.runs.asking import Asking

    run, settings = load_asked(cfg, averages=True)
    if job:
        job.refuse_shared_process(settings.devices)
    if settings.within is None:
        launch(settings.devices)
        refuse_other_folds(run.folder)
    print(f"predict: {run.folder.path}, folds {' '.join(map(str, run.numbers))}")
    task, asking = run.parts.task, Asking.of(run)
    name = settings.name or asking.name
    if settings.shard_rows is not None:
        refuse_separate(Path(settings.submissions_dir))
        return predict_shards(asking, name, settings)
    path = submission_path(Path(settings.submissions_dir), name, task.suffix)
    predictions: Any
    is_answered = True
    if settings.within is not None:
        from nexttoken.runs.timed.submission import predict_within

        predictions, is_answered = predict_within(asking, lambda: read(run.parts, "test"), path, settings)
    else:
        predictions = answers_of(task).answer(run, same_rows(read(run.parts, "test")))
        if not is_first():
            return path
        with without_remarks():
            asking.save(predictions, path)
    with without_remarks():
        results = answers_of(task).finish(asking, predictions, path)  # type: ignore[arg-type]
    if results:
        from nexttoken.report.by_tag import results_table

        show(results_table(results, by="file"))
    print(f"submission: {path}, {counted(len(predictions.ids), 'row')}, validated")
    if not is_answered:
        sys.exit(UNANSWERED)
    return path


def predict_shards(asking: "Asking", name: str, settings: PredictSettings) -> Path:
    """Predict the test in shards, write a validated submission, as Parquet where its name says so; return its path."""
    from nexttoken.runs.shards.prediction import PARQUET, predict_in_shards

    if settings.within is not None:
        raise UserError(
            "shard_rows=... answers every row, within=... as many as the time allows; leave one of them out"
        )
    suffix = PARQUET if name.endswith(PARQUET) else asking.run.parts.task.suffix
    path = submission_path(Path(settings.submissions_dir), name, suffix)
    if num_rows := predict_in_shards(asking, path, settings.shard_rows or 0):
        print(f"submission: {path}, {counted(num_rows, 'row')}, validated")
    return path


def load_asked(cfg: DictConfig, averages: bool = False) -> "tuple[LoadedRun, PredictSettings]":
    """The finished run that a configuration of predict.py names, loaded to be asked as it says, and its settings.

    With `averages` it is the average of its replicas, where it has some and is asked as it was trained.
    """
    from nexttoken.runs.config import Changes
    from nexttoken.runs.load import load
    from nexttoken.runs.replicas import average_replicas

    settings = check_settings(PredictSettings, config := plain(cfg))
    check_targets(config)
    require_packages(config)
    folder = RunFolder(Path(settings.run)) if settings.run else latest_run(Path(settings.output_dir))
    changes, trusts = Changes.of(settings), settings.trust_remote_code
    if (settings.cascade, settings.cascade_share) != (None, None):
        from nexttoken.runs.loaded_cascade import load_cascade  # needs pandas

        return load_cascade(folder, settings, changes), settings
    if averages and settings.replicas and changes == Changes(folder=changes.folder):
        folder = average_replicas(folder)
    return load(folder, settings.input_dir, settings.batch_tokens, settings.base, changes, trusts), settings


def ask_run(run: RunFolder, examples: list[Example]) -> LabelPredictions:
    """The answers of a finished run, averaged over its folds."""
    from nexttoken.runs.load import load  # needs torch

    return load(run).answer(examples)


def read(parts: Parts, split: Split, counted: dict[str, Any] | None = None) -> list[Example]:
    examples = apply_transforms(parts.task.read(split), parts.transforms, counted)
    log_unseen(parts.prompt.count_unshown(examples))
    return examples


def load_learner(parts: Parts, data: FoldData, fold: FoldFolder) -> "Learner | ProbeLearner":
    """Encode the training examples and load the model: the last step that may refuse a configuration.

    `data.counted` receives the counts of the training transforms.
    """
    rows, counted = data.rows, data.counted
    transforms = parts.train_transforms if parts.settings.trainer.max_epochs else {}
    training = apply_transforms(rows.train, transforms, counted)
    whole = apply_transforms(rows.learnt, transforms, counted) if rows.refits else []
    training, whole = (parts.inference.training_views(some, some) for some in (training, whole))
    if not training:
        raise UserError(f"the train_transforms leave none of {len(rows.train)} training rows; choose others")
    parts.prompt.render(training[0])  # refuses a template of other fields before torch is imported
    from nexttoken.models.memory import forget_peak
    from nexttoken.training.learner import Learner
    from nexttoken.training.probe_learner import ProbeLearner

    forget_peak()
    dev = parts.inference.views(rows.dev, rows.train)  # as inference shows them to the model
    kind = ProbeLearner if parts.reads_states else Learner
    return kind.load(parts.settings, parts.make_head(), parts.prompt, training, dev, fold.path, whole)
