"""The fit of a calibration on a run's out-of-fold rows, and what it is worth on rows that it was not fitted on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nexttoken.data.targets import load_class
from nexttoken.errors import UserError
from nexttoken.inference.gate_thresholds import group_parts
from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_scores
from nexttoken.metrics.scaling import Scaling, choose_scaling, cross_scaled, methods_for
from nexttoken.runs.calibration import Calibration
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.read import group_names, read_groups
from nexttoken.runs.scored_runs import Run, probabilities
from nexttoken.types import Metric

MIN_ROWS, MIN_GROUPS = 100, 20  # of fewer rows or groups the choice of a method is luck


def refuse_gate(run: Path) -> None:
    """Raise UserError for a run that predicts in another way than its out-of-fold rows were answered."""
    if (run / "gate.json").exists() and any(_takes_thresholds(fold) for fold in RunFolder(run).finished_folds()):
        raise UserError(
            f"{run} answers by the thresholds of gate.json, and its out-of-fold rows were answered by others; remove"
            " gate.json, or leave the run as it is"
        )


def _takes_thresholds(fold: FoldFolder) -> bool:
    """True where the fold's own inference has a gate; others ignore gate.json."""
    target = (fold.config().get("inference") or {}).get("_target_")
    return hasattr(load_class(target, "inference"), "gate") if target else False


def refuse_few_rows(run: Run, otherwise: str = "train more of its folds") -> None:
    """Raise UserError for a run of one fold, or of too few rows or groups; `otherwise` is the fix."""
    rows, groups = len(run.oof), len(set(groups_of(run)))
    if len(run.folds) < 2:
        raise UserError(
            f"{run.folder} has one finished fold, and a fold is scored by what was fitted on the others; train more:"
            f" python train.py -m fold=0,1,2,3,4 ({otherwise})"
        )
    if rows < MIN_ROWS or groups < MIN_GROUPS:
        raise UserError(
            f"{run.folder} has {rows} out-of-fold rows in {groups} groups, expected at least {MIN_ROWS} in"
            f" {MIN_GROUPS} for a fit; use more rows ({otherwise})"
        )


def fit_calibration(run: Run, swap: Sequence[int] | None = None) -> Calibration:
    """The method and its values for new rows from all folds, and those for each fold from the other folds alone.

    The method is chosen by the log loss of parts of whole groups, within the rows that it is fitted on.
    """
    groups, folds = np.array(groups_of(run)), run.oof["fold"].to_numpy()
    probs, labels = probabilities(run.oof), run.oof["label"].to_numpy()

    def chosen(rows: np.ndarray) -> Scaling:
        return choose_scaling(probs[rows], labels[rows], group_parts(groups[rows]), swap)

    by_fold = {fold.number: chosen(folds != fold.number) for fold in run.folds}
    trainings = {fold.number: FoldFolder(fold.folder).training_id for fold in run.folds}
    return Calibration(chosen(np.ones(len(folds), dtype=bool)), by_fold, trainings, {})


def calibrated(run: Run, calibration: Calibration) -> Run:
    """The run with cross-fitted probabilities: each fold's by a scaling that has not seen its rows."""
    return run.with_probs([calibration.by_fold[fold.number](probabilities(fold.oof)) for fold in run.folds])


def cross_fitted(method: str, run: Run, swap: Sequence[int] | None = None) -> Run:
    """The run with probabilities of one method, fitted for each fold on the others."""
    folds = run.oof["fold"].to_numpy()
    scaled = cross_scaled(method, probabilities(run.oof), run.oof["label"].to_numpy(), folds, swap)
    return run.with_probs([scaled[folds == fold.number] for fold in run.folds])


def methods_of(run: Run) -> tuple[str, ...]:
    """The methods that are tried on a run, without `none`."""
    return methods_for(probabilities(run.folds[0].oof).shape[1])[1:]


def gain_of(after: Run, before: Run, metric: Metric = LOG_LOSS) -> tuple[float, Interval]:
    """The gain in the metric over the other probabilities of the same rows, and its 95 % interval over groups."""
    sign = 1 if metric.higher_is_better else -1
    tables = [run.scored(metric) for run in (after, before)]
    draws = resampled_scores(metric, tables, np.array(groups_of(before)))
    known = (draws[:, 0] - draws[:, 1])[~np.isnan(draws).any(axis=1)]
    return sign * (after.score(metric) - before.score(metric)), percentile_interval(sign * known)


def groups_of(run: Run) -> list[str]:
    """The group of near-duplicates of each out-of-fold row, in the order of `run.oof`."""
    return group_names(run.oof["id"], read_groups(run.folder))
