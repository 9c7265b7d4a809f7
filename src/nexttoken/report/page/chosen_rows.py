"""The rows that the page holds, with the lists of them to look at, and what each run says of them as plain lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.report.page.both_orders import BothOrders, find_both_orders
from nexttoken.report.page.row_table import RowTable
from nexttoken.report.page.row_views import find_views
from nexttoken.runs.read import read_numbers
from nexttoken.runs.scored_runs import Run

MAX_ROWS = 5_000  # with more, only the rows of the views are in the page
NUM_SHOWN = 8  # classes of a row: all where there are no more, else the most probable ones
PARTS = 10_000  # probabilities are whole numbers of this part


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
