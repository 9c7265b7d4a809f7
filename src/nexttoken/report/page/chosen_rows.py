"""The rows that the page holds: as arrays, in the lists of those worth a look, and as plain lists for the script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_losses
from nexttoken.report.page.both_orders import BothOrders, find_both_orders
from nexttoken.runs.read import read_numbers
from nexttoken.runs.scored_runs import Run, probabilities

MAX_LISTED = 100
VIEWS = {  # what the page calls them
    "worst": "worst (highest loss)",
    "certain": "most certain and wrong",
    "uncertain": "most uncertain",
    "flipped": "flipped by the order",
    "random": "random",
}
MAX_ROWS = 5_000  # with more, only the rows of the views are in the page
NUM_SHOWN = 8  # classes of a row: all where there are no more, else the most probable ones
PARTS = 10_000  # probabilities are whole numbers of this part


def find_views(
    probs: np.ndarray, losses: np.ndarray, labels: np.ndarray, orders: BothOrders | None = None
) -> dict[str, np.ndarray]:
    """The places of up to MAX_LISTED rows for each view, the first one to look at first.

    `probs` (N, K) and `losses` (N,) are NaN for rows without an answer, which no view lists. A row is uncertain where
    its two best classes are close, and flipped where the two orders decide for different classes.
    """
    known = np.flatnonzero(np.isfinite(losses))
    best = np.sort(probs[known], axis=1)[:, ::-1]
    wrong = probs[known].argmax(axis=1) != labels[known]
    views = {
        "worst": known[_lowest(-losses[known])],
        "certain": known[wrong][_lowest(-best[wrong, 0])],
        "uncertain": known[_lowest(best[:, 0] - best[:, 1])],
    }
    if orders is not None:
        flips = np.flatnonzero(orders.flips)
        views["flipped"] = flips[_lowest(-orders.gaps[flips])]
    views["random"] = np.random.default_rng(0).permutation(known)[:MAX_LISTED]
    return views


def _lowest(values: np.ndarray) -> np.ndarray:
    return np.argsort(values, kind="stable")[:MAX_LISTED]


@dataclass(frozen=True)
class RowTable:
    """N rows of R runs with K classes; a row that a run lacks has NaN there, and -1 as its guess.

    `probs` (R, N, K), `losses` and `guesses` (R, N), `ids`, `folds` and `labels` (N,): the rows of the first run in
    its order, then those that only later runs have.
    """

    ids: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    probs: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "RowTable":
        tables = [run.oof.set_index("id") for run in runs]
        facts = pd.concat([table[["fold", "label"]] for table in tables])
        facts = facts[~facts.index.duplicated()]
        classes = [probabilities(run.oof) for run in runs]
        probs = np.full((len(runs), len(facts), classes[0].shape[1]), np.nan)
        losses = np.full(probs.shape[:2], np.nan)
        for place, (table, own) in enumerate(zip(tables, classes, strict=True)):
            rows = facts.index.get_indexer(table.index)
            probs[place, rows] = own
            losses[place, rows] = log_losses(own, table["label"].to_numpy())
        return cls(facts.index.to_numpy(), facts["fold"].to_numpy(), facts["label"].to_numpy(), probs, losses)

    @property
    def guesses(self) -> np.ndarray:
        known = np.isfinite(self.losses)
        return np.where(known, np.nan_to_num(self.probs, nan=-1.0).argmax(axis=2), -1)

    def only(self, rows: np.ndarray) -> "RowTable":
        """The table of these rows, by their places."""
        facts = (self.ids[rows], self.folds[rows], self.labels[rows])
        return RowTable(*facts, self.probs[:, rows], self.losses[:, rows])


@dataclass(frozen=True)
class ChosenRows:
    """M of `num_rows` rows of R runs. `views` of each run are places among the M; `order` has all, listed ones first.

    `orders` has the probabilities of each run in both orders, None where it was not asked so.
    """

    num_rows: int
    table: RowTable
    orders: tuple[BothOrders | None, ...]
    views: tuple[dict[str, list[int]], ...]
    order: list[int]

    @classmethod
    def of(cls, runs: Sequence[Run], every_row: bool = False) -> "ChosenRows":
        """All rows of the runs, or of more than MAX_ROWS those of the views."""
        table = RowTable.of(runs)
        orders = [find_both_orders(run, table.ids.tolist()) for run in runs]
        answers = zip(table.probs, table.losses, orders, strict=True)
        found = [find_views(probs, losses, table.labels, pair) for probs, losses, pair in answers]
        listed, number = _listed(found), len(table.ids)
        kept = np.arange(number) if every_row or number <= MAX_ROWS else np.sort(listed)
        places = np.full(number, -1)
        places[kept] = np.arange(len(kept))
        views = tuple({name: places[rows].tolist() for name, rows in one.items()} for one in found)
        pairs = tuple(pair and BothOrders(pair.straight[kept], pair.swapped[kept]) for pair in orders)
        order = [*dict.fromkeys([*places[listed].tolist(), *range(len(kept))])]
        return cls(number, table.only(kept), pairs, views, order)

    def answers(self) -> dict[str, Any]:
        """Facts of the rows, and what each run says of them, flat: run by run, row by row, class by class.

        `top` are the classes of the probabilities where not all are shown; the wanted class is always among them.
        """
        table, number = self.table, self.table.probs.shape[2]
        answers = {
            "views": self.views,
            "ids": table.ids.tolist(),
            "folds": table.folds.tolist(),
            "labels": table.labels.tolist(),
            "losses": [None if np.isnan(loss) else round(loss, 4) for loss in table.losses.ravel().tolist()],
            "guesses": table.guesses.ravel().tolist(),
            "straight": [pair and _parts(pair.straight) for pair in self.orders],
            "swapped": [pair and _parts(pair.swapped) for pair in self.orders],
            "slots": min(number, NUM_SHOWN),
        }
        if number <= NUM_SHOWN:
            return answers | {"top": None, "probs": _parts(table.probs)}
        top = np.argsort(-np.nan_to_num(table.probs, nan=-1.0), axis=2, kind="stable")[:, :, :NUM_SHOWN]
        is_shown = (top == table.labels[None, :, None]).any(axis=2)
        top[:, :, -1] = np.where(is_shown, top[:, :, -1], table.labels[None, :])
        probs = np.take_along_axis(table.probs, top, axis=2)
        return answers | {"top": top.ravel().tolist(), "probs": _parts(probs)}

    def outside(self, runs: Sequence[Run]) -> list[list[float | None] | None]:
        """Of each run the probability of other words than the labels, None where rows.csv does not have it."""
        return [_outside(run, self.table.ids) for run in runs]


def _listed(views: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """The rows of the views, each once: those of the first run first, by their rank in any of its views."""
    ranked = [
        (place > 0, rank, row)
        for place, one in enumerate(views)
        for rows in one.values()
        for rank, row in enumerate(rows.tolist())
    ]
    return np.array([*dict.fromkeys(row for _, _, row in sorted(ranked))], dtype=np.int64)


def _parts(probs: np.ndarray) -> list[int]:
    """Probabilities as whole numbers of ten thousand, -1 for none."""
    return np.where(np.isnan(probs), -1, np.rint(np.nan_to_num(probs) * PARTS)).astype(int).ravel().tolist()


def _outside(run: Run, ids: np.ndarray) -> list[float | None] | None:
    try:
        tables = [read_numbers(fold.folder / "rows.csv", {"outside": _number_or_nan}) for fold in run.folds]
    except UserError:
        return None  # of an earlier version, or of a head without other words
    known = pd.concat(tables).set_index("id")["outside"].reindex(ids.tolist())
    return [None if np.isnan(one) else float(f"{one:.3g}") for one in known.tolist()]


def _number_or_nan(cell: str) -> float:
    return float(cell) if cell else float("nan")
