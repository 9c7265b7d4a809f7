"""Variants x seeds x folds on one data set: complete, and alike in all but what is compared; all else is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from nexttoken.errors import UserError, first_five
from nexttoken.report.cells import REPLICATES, Cell
from nexttoken.runs.identity import describe_differences
from nexttoken.runs.read import Data, probabilities, row_losses

ROW_SCORES = {  # what a row adds to the mean that the metric is
    "log_loss": row_losses,
    "accuracy": lambda oof: (probabilities(oof).argmax(axis=1) == oof["label"]).to_numpy(np.float64),
}
CHANGES_ROWS = ("task", "transforms")  # comparing by these, the rows' fields differ on purpose


@dataclass(frozen=True)
class Grid:
    """The cells on one data set: every variant has every seed and fold, on the same rows."""

    by: str
    data: Data
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    groups: np.ndarray  # (N,), rows in the order of folds, then ids
    cells: Mapping[tuple[str, int, int], Cell]

    @classmethod
    def of(cls, cells: Sequence[Cell], by: str) -> "Grid":
        """Raises UserError naming what differs besides `by`, the rows that differ, or the runs that are missing."""
        _require_same_settings(cells, by)
        _require_same_rows(cells, by)
        placed = _place(cells)
        names = sorted({cell.variant for cell in cells}, key=_natural)
        if len(names) < 2:
            raise UserError(
                f"all runs on {cells[0].data.dataset} have {by} {names[0]}: nothing to compare; train another variant"
            )
        seeds, folds = (sorted({getattr(cell, key) for cell in cells}) for key in REPLICATES)
        if missing := [place for place in product(names, seeds, folds) if place not in placed]:
            shown = first_five(f"{name} seed={seed} fold={fold}" for name, seed, fold in missing)
            raise UserError(f"not trained or not finished on {cells[0].data.dataset}: {shown}; train them first")
        groups = np.concatenate([placed[names[0], seeds[0], fold].oof["group"] for fold in folds])
        return cls(by, cells[0].data, tuple(names), tuple(seeds), tuple(folds), groups, placed)

    def scores(self, metric: str) -> np.ndarray:
        """Every row's score, (V, S, N)."""
        rows = {place: ROW_SCORES[metric](cell.oof.drop(columns="group")) for place, cell in self.cells.items()}
        return np.array(
            [[np.concatenate([rows[v, s, fold] for fold in self.folds]) for s in self.seeds] for v in self.variants]
        )

    @property
    def num_runs(self) -> int:
        return len(self.cells)


def _natural(name: str) -> tuple[float, str]:
    """Numbers by size, before words."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _place(cells: Sequence[Cell]) -> dict[tuple[str, int, int], Cell]:
    placed: dict[tuple[str, int, int], Cell] = {}
    for cell in cells:
        other = placed.setdefault((cell.variant, cell.seed, cell.fold), cell)
        if other is not cell:
            raise UserError(f"{other.folder} and {cell.folder} are both {cell}; give the paths of one of them")
    return placed


def _require_same_settings(cells: Sequence[Cell], by: str) -> None:
    for cell in cells:
        if differences := describe_differences(cells[0].config, cell.config):
            both = f"{cells[0].folder} and {cell.folder}"
            raise UserError(f"{both} differ in more than {by} ({differences}); compare runs that differ in {by} alone")


def _require_same_rows(cells: Sequence[Cell], by: str) -> None:
    first: dict[int, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.fold, cell)
        if list(other.oof.columns) != list(cell.oof.columns):
            reason = f"classes {', '.join(other.oof.columns[3:-1])} and {', '.join(cell.oof.columns[3:-1])}"
        elif differ := _different_rows(other.oof, cell.oof):
            reason = f"{len(differ)} rows in one of them, of another label or in another group: {first_five(differ)}"
        elif cell.data_hash != cells[0].data_hash and by.partition(".")[0] not in CHANGES_ROWS:
            other, reason = cells[0], "the texts of the data have changed between them (data.sha256)"
        else:
            continue
        raise UserError(f"{other.folder} and {cell.folder} were not scored on the same rows: {reason}")


def _different_rows(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    both = first.merge(second, on=["id", "label", "group"], how="outer", indicator=True)
    return sorted(both.loc[both["_merge"] != "both", "id"].unique())
