"""A pair's probabilities in both orders of its answers, where a run was asked once and as the average of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.read import read_run
from nexttoken.runs.scored_runs import Run, classes_of

ONCE, AVERAGED = "Once", "SwapAveraged"


@dataclass(frozen=True)
class BothOrders:
    """Probabilities (N, K) of the pairs as they are and with the answers in the other order, classes put back.

    Rows that were not asked in both orders are NaN.
    """

    straight: np.ndarray
    swapped: np.ndarray

    @property
    def flips(self) -> np.ndarray:
        """True (N,) where the two orders decide for different classes."""
        known = np.isfinite(self.straight + self.swapped).all(axis=1)
        return known & (self.straight.argmax(axis=1) != self.swapped.argmax(axis=1))

    @property
    def gaps(self) -> np.ndarray:
        """The probability that changes its class with the order, (N,)."""
        return np.abs(self.straight - self.swapped).sum(axis=1) / 2


def find_both_orders(run: Run, ids: Sequence[str]) -> BothOrders | None:
    """Both orders of the rows `ids`; None where the run was not asked in both ways.

    The average of both orders and one of them give the other one.
    """
    asked: dict[str, Run] = {}
    for one in _ways(run):
        asked.setdefault(_inference_of(one), one)
    if not {ONCE, AVERAGED} <= asked.keys():
        return None
    straight, average = (_aligned(asked[name], ids) for name in (ONCE, AVERAGED))
    return BothOrders(straight, 2 * average - straight)


def _ways(run: Run) -> list[Run]:
    """The run, or that whose weights answered, in all ways that can be read, are up to date, and differ only in it."""
    base = RunFolder(run.folder).asked_of or RunFolder(run.folder)
    ways = []
    for folder in (base, *base.ways):
        try:
            way = read_run(folder.path)
        except UserError:
            continue  # the page shows the run without this way
        is_outdated = any(FoldFolder(fold.folder).is_outdated for fold in way.folds)
        if not is_outdated and _without_inference(way) == _without_inference(run):
            ways.append(way)
    return ways


def _without_inference(run: Run) -> dict[str, Any]:
    config = FoldFolder(run.folds[0].folder).config()
    return {key: value for key, value in config.items() if key not in ("inference", "fold")}


def _inference_of(run: Run) -> str:
    inference = FoldFolder(run.folds[0].folder).config().get("inference") or {}
    return str(inference.get("_target_", "")).rpartition(".")[2]


def _aligned(run: Run, ids: Sequence[str]) -> np.ndarray:
    """The run's probabilities (N, K) of the rows `ids`, NaN where it lacks one."""
    oof = run.oof
    return oof.set_index("id")[classes_of(oof)].reindex(list(ids)).to_numpy(np.float64)
