"""A gate's thresholds, chosen on other held-out questions than those that they are scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.gate import ABOVE, Decision, Gate, Trial, decide_by_part, paired
from nexttoken.metrics.scaling import fit_temperature

NUM_STEPS = 50  # of a threshold's grid: each step searches for a fiftieth of the questions more
NUM_PARTS = 5  # of the rows of a single fold, when thresholds are chosen on the others


def gates_over(trial: Trial, like: Gate, thresholds: Sequence[str] = ("min_top1", "min_margin")) -> list[Gate]:
    """Gates as `like` with every combination of the named thresholds, the others 0: from never to always.

    The grid are quantiles of the rows' confidences, since a fixed one would be too coarse for a model whose
    probabilities are all over 0.95.
    """
    values = dict(zip(("min_top1", "min_margin"), like.confidence(trial.first), strict=True))
    shares = np.linspace(0, 1, NUM_STEPS + 1)[1:]
    grids = {name: np.unique([0.0, *np.round(np.quantile(values[name], shares), 6), ABOVE]) for name in thresholds}
    steps = [grids[name].tolist() if name in grids else [0.0] for name in values]
    return [replace(like, min_top1=top1, min_margin=margin) for top1, margin in product(*steps)]


def choose_thresholds(trial: Trial, like: Gate, max_share: float = 0.5, tolerance: float = 0.5) -> Gate:
    """The gate that searches least among those as good as the best that searches at most `max_share` of the rows.

    "As good" means behind the best by at most `tolerance` standard errors of the paired difference, since the best
    of hundreds of gates is partly luck (the one-standard-error rule, Breiman et al. 1984, on pairs). 0 takes the best
    itself. Between equals the smaller share wins, then the smaller margin.
    """
    top1, margin = like.confidence(trial.first)
    gains = trial.gains * (trial.found & like.choose(trial.first, trial.second))
    gates = gates_over(trial, like)
    masks = [(top1 < gate.min_top1) | (margin < gate.min_margin) for gate in gates]
    allowed = sorted(
        (float(mask.mean()), gate.min_margin, gate.min_top1, index)
        for index, (gate, mask) in enumerate(zip(gates, masks, strict=True))
        if mask.mean() <= max_share
    )
    best = max(allowed, key=lambda one: gains[masks[one[-1]]].sum())[-1]  # the first of equals
    for *_, index in allowed:
        behind, error = paired(gains * (masks[best].astype(np.int64) - masks[index]))
        if behind <= tolerance * error:
            return gates[index]
    return gates[best]


def fit_gate(trial: Trial, keep_confident: bool = True, max_share: float = 0.5, tolerance: float = 0.5) -> Gate:
    """Fit the temperature on the first answers, then choose the thresholds."""
    like = Gate(0.0, 0.0, fit_temperature(trial.first, trial.labels), keep_confident)
    return choose_thresholds(trial, like, max_share, tolerance)


@dataclass(frozen=True)
class CrossChosen:
    """Every row decided by a gate fitted on the other parts: an unbiased estimate of the gate's value."""

    decision: Decision
    gates: Mapping[int, Gate]  # of each part, fitted on the others
    parts: str  # "folds", or "parts of one fold"


def cross_chosen(
    trial: Trial, keep_confident: bool = True, max_share: float = 0.5, tolerance: float = 0.5
) -> CrossChosen:
    """Apply to each fold's rows a gate fitted on all other folds; a single fold is split into parts of whole groups.

    The share searched may be a little above `max_share`. Raises UserError where all rows are one group.
    """
    single = len(np.unique(trial.folds)) == 1
    parts = group_parts(trial.groups) if single else trial.folds
    gates = {
        part: fit_gate(trial.pick(parts != part), keep_confident, max_share, tolerance)
        for part in np.unique(parts).tolist()
    }
    return CrossChosen(decide_by_part(trial, parts, gates), gates, "parts of one fold" if single else "folds")


def group_parts(groups: np.ndarray) -> np.ndarray:
    """Part per row, (N,): groups in a fixed random order, dealt out one by one."""
    numbers, positions = np.unique(groups, return_inverse=True)
    if len(numbers) < 2:
        raise UserError(
            f"all {len(groups)} held-out rows are one group, so thresholds cannot be chosen on others; train another"
        )
    order = np.random.default_rng(0).permutation(len(numbers))
    return (order % min(NUM_PARTS, len(numbers)))[positions]
