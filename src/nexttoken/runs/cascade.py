"""The fit of a cascade on the out-of-fold rows of two runs; each fold is scored with what the other folds chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.cascade import Cascade, certainty, threshold_of
from nexttoken.inference.gate import paired
from nexttoken.metrics.decisions import has_threshold
from nexttoken.runs.blend import is_blend
from nexttoken.runs.blend_fit import Members
from nexttoken.runs.calibration_fit import refuse_few_rows
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.scored_runs import Run

SHARES = tuple(np.linspace(0, 1, 21).round(2).tolist())  # of the rows that the larger run answers
TOLERANCE = 0.5  # standard errors, as of a gate


@dataclass(frozen=True)
class CascadedRun:
    """The out-of-fold rows of a cascade: `run` has its probabilities, `went_on` (N,) marks the larger run's rows."""

    run: Run
    went_on: np.ndarray


@dataclass(frozen=True)
class Pair:
    """The out-of-fold rows of a small and of a larger run: same rows, classes and folds.

    `folds` and `labels` are (N,), `small` and `larger` the (N, K) probabilities, in the order of the small run's rows.
    `weights` of both are by log loss, by the fold that they were not fitted on, None for all folds: the same for every
    share.
    """

    runs: tuple[Run, Run]
    folds: np.ndarray
    labels: np.ndarray
    small: np.ndarray
    larger: np.ndarray
    weights: Mapping[int | None, tuple[float, float]]

    @classmethod
    def read(cls, small: Path, larger: Path) -> "Pair":
        """Both runs' rows as predict.py would answer them, after their calibrations.

        Raises UserError for a blend, one run twice, runs that are not finished, answer with texts or have other rows,
        classes, task settings or folds, and for too few rows or folds for a fit.
        """
        for path in (small, larger):
            if is_blend(path):
                raise UserError(f"{path} is a blend, whose cost is that of its members; name a run with a model")
        if small.resolve() == larger.resolve():
            raise UserError(f"{small} is named as the small and as the larger run; name two runs")
        members = Members.read([str(small), str(larger)])
        refuse_few_rows(members.runs[0], "a cascade is fitted on other folds than it is scored on")
        first, (one, other) = members.runs[0], map(np.concatenate, members.tables)
        folds, labels = first.oof["fold"].to_numpy(), first.oof["label"].to_numpy()
        places = {None: None} | {fold.number: place for place, fold in enumerate(first.folds)}
        weights = {but: tuple(members.weights("logits", True, place).tolist()) for but, place in places.items()}
        return cls((first, members.runs[1]), folds, labels, one, other, weights)

    @cached_property
    def certainties(self) -> np.ndarray:
        return certainty(self.small)

    def fit(self, share: float, but: int | None = None) -> Cascade:
        """The cascade of this share, fitted on all folds, or on all folds but one."""
        return Cascade(threshold_of(self.certainties[self.folds != but], share), self.weights[but])

    def choose_share(self, tolerance: float = TOLERANCE, but: int | None = None) -> float:
        """The smallest share that scores as well as every row answered by both runs.

        "As well" means behind by at most `tolerance` standard errors of the paired difference, by the task's metric
        where it is a mean over rows, else by log loss. `but`: on all folds but this one.
        """
        rows = self.folds != but
        small, labels = self.small[rows], self.labels[rows]
        metric = self.runs[0].metric
        if metric.by or np.ndim(metric.function(small, labels)) == 0 or has_threshold(metric, small.shape[1]):
            metric = LOG_LOSS
        sign = 1 if metric.higher_is_better else -1
        both = self.fit(1.0, but).combine(small, self.larger[rows])
        gains = sign * (metric.function(both, labels) - metric.function(small, labels))
        for share in SHARES:
            behind, error = paired(np.where(self.fit(share, but).unsure(small), 0.0, gains))
            if behind <= tolerance * error:
                return share
        return 1.0

    def cascaded(self, shares: float | Mapping[int, float], larger_alone: bool = False) -> CascadedRun:
        """Each fold's rows by the cascade that the other folds fitted; `shares` may be each fold's own.

        With `larger_alone`, the rows that go on get the larger run's answer instead of both runs'.
        """
        probs, went_on = self.small.copy(), np.zeros(len(self.folds), dtype=bool)
        parts = [self.folds == fold.number for fold in self.runs[0].folds]
        for fold, rows in zip(self.runs[0].folds, parts, strict=True):
            cascade = self.fit(shares[fold.number] if isinstance(shares, Mapping) else shares, fold.number)
            went_on[rows] = cascade.unsure(self.small[rows])
            both = self.larger[rows] if larger_alone else cascade.combine(self.small[rows], self.larger[rows])
            probs[rows] = np.where(went_on[rows][:, None], both, self.small[rows])
        return CascadedRun(self.runs[0].with_probs([probs[rows] for rows in parts]), went_on)

    def cross_chosen(self, tolerance: float = TOLERANCE) -> CascadedRun:
        """Each fold's rows by the share, threshold and weight that the other folds chose."""
        numbers = [fold.number for fold in self.runs[0].folds]
        return self.cascaded({number: self.choose_share(tolerance, number) for number in numbers})

    @cached_property
    def relative_cost(self) -> float | None:
        """The small run's operations for a row over those of the larger one; None where a run did not count them."""
        small, larger = map(operations_a_row, self.runs)
        return None if small is None or not larger else small / larger

    def share_within(self, budget: float) -> float:
        """The share that costs `budget` of asking the larger run alone, with the small run's own cost.

        Raises UserError where the costs are not known, or the small run alone costs more.
        """
        if self.relative_cost is None:
            raise UserError("budget=... needs the tokens and weights of both runs in metrics.json; give share=...")
        if budget < self.relative_cost:
            what = f"budget={budget:g} is less than the small run alone costs, {self.relative_cost:.3f} of the larger"
            raise UserError(f"{what}; give a larger one")
        return round(min(1.0, budget - self.relative_cost), 4)


def operations_a_row(run: Run) -> float | None:
    """Prompt tokens of a row times the model's weights, half of a forward pass's operations; None where not counted."""
    tokens, folds = run.tokens_a_row, [FoldFolder(fold.folder).answered_by for fold in run.folds]
    weights = [fold.metrics().get("num_parameters") for fold in folds]
    return None if tokens is None or None in weights else tokens * float(np.mean(weights))  # type: ignore[arg-type]
