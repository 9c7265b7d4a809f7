"""Finished folds of one data set as variants x seeds x folds: complete, and alike in all but the setting compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nexttoken.errors import UserError, first_five, nearest
from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.ranking import Scored
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.identity import describe_differences
from nexttoken.runs.read import Data, Fold, probabilities, read_groups, read_runs, refuse_twice_scored
from nexttoken.settings import INCIDENTAL

COMPARED = {metric.name: metric for metric in METRICS if metric.name in ("log_loss", "accuracy")}  # means over rows
CHANGES_ROWS = ("task", "transforms")  # comparing by these, the rows' fields differ on purpose


@dataclass(frozen=True)
class Cell:
    """One trained fold. `oof` is sorted by id and has the `group` of folds.csv besides what oof.csv has."""

    fold: Fold
    variant: str
    seed: int
    config: dict[str, Any]  # without the key that is compared, the seed, and where the data lies
    data_hash: str
    oof: pd.DataFrame

    def __str__(self) -> str:
        return f"{self.variant} seed={self.seed} fold={self.fold.number}"


def read_cells(paths: Sequence[Path], by: str) -> list[Cell]:
    """Every finished fold below `paths`, once. Raises UserError for a broken one, or where no run has the key `by`."""
    if by in ("seed", "fold", "input_dir", *INCIDENTAL):
        raise UserError(f"by={by}: runs are not compared by {by}; name a setting, such as head or adapter.r")
    folds = {fold.folder.resolve(): fold for path in paths for run in read_runs(path) for fold in run.folds}
    configs = {folder: FoldFolder(folder).config() for folder in folds}
    known = {key for config in configs.values() for key in _keys(config)}
    if by not in known:
        raise UserError(f"no run has the key {by!r} in its config.yaml; {nearest(by, known)}")
    groups = {folder: read_groups(folder) for folder in {folder.parent for folder in folds}}
    return [_cell(fold, configs[folder], groups[folder.parent], by) for folder, fold in folds.items()]


def _cell(fold: Fold, config: dict[str, Any], groups: Mapping[str, int], by: str) -> Cell:
    oof = fold.oof.assign(group=fold.oof["id"].map(groups)).sort_values("id", ignore_index=True)
    if (missing := oof["group"].isna()).any():
        table = fold.folder.parent / "folds.csv"
        raise UserError(f"{table} lacks the ids {first_five(oof.loc[missing, 'id'])} of {fold.folder}")
    variant, seed = _name(_pop(config, by)), int(config.pop("seed", 0))
    config.pop("input_dir", None)
    path = fold.folder / "data.sha256"
    return Cell(fold, variant, seed, config, path.read_text(encoding="utf-8") if path.exists() else "", oof)


def _pop(config: dict[str, Any], key: str) -> Any:
    """Take a dotted key out of a configuration; below a node that is off (`adapter: null`) its value is None."""
    *path, last = key.split(".")
    node: Any = config
    for name in path:
        node = node.get(name)
        if not isinstance(node, dict):
            return None
    return node.pop(last, None)


def _keys(node: Any, path: str = "") -> set[str]:
    """Every dotted key, those of nodes as well."""
    children = node.items() if isinstance(node, Mapping) else ()
    return {path} - {""} | {key for name, child in children for key in _keys(child, f"{path}.{name}".lstrip("."))}


def _name(value: Any) -> str:
    """A value as the name of a variant: `none`, `16`, or the class of a node with its other keys."""
    if not isinstance(value, Mapping):
        return "none" if value is None else str(value)
    others = {key: child for key, child in value.items() if key != "_target_"}
    text = yaml.safe_dump(others, default_flow_style=True, width=10_000).strip() if others else ""
    return f"{str(value.get('_target_', '')).rpartition('.')[2]} {text}".strip()


@dataclass(frozen=True)
class Grid:
    """The cells of one data set: every variant has every seed and fold, on the same rows."""

    by: str
    data: Data
    folds: tuple[int, ...]
    scored: Scored  # a column per metric of COMPARED
    num_cells: int

    @classmethod
    def of(cls, cells: Sequence[Cell], by: str) -> "Grid":
        """Raises UserError naming what differs besides `by`, the rows that differ, or the runs that are missing."""
        _require_same_settings(cells, by)
        _require_same_rows(cells, by)
        data, placed = cells[0].fold.data, _place(cells)
        names = sorted({cell.variant for cell in cells}, key=_natural)
        if len(names) < 2:
            raise UserError(
                f"all runs on {data.dataset} have {by} {names[0]}: nothing to compare; train another variant"
            )
        seeds, folds = sorted({cell.seed for cell in cells}), sorted({cell.fold.number for cell in cells})
        if missing := [place for place in product(names, seeds, folds) if place not in placed]:
            shown = first_five(f"{name} seed={seed} fold={fold}" for name, seed, fold in missing)
            raise UserError(f"not trained or not finished on {data.dataset}: {shown}; train them first")
        tables = {
            (name, seed): _with_scores(pd.concat([placed[name, seed, fold].oof for fold in folds]))
            for name, seed in product(names, seeds)
        }
        refuse_twice_scored(cells[0].fold.folder.parent, tables[names[0], seeds[0]]["id"])
        return cls(by, data, tuple(folds), Scored.of(tables, tuple(COMPARED), same="label"), len(cells))


def _with_scores(oof: pd.DataFrame) -> pd.DataFrame:
    probs, labels = probabilities(oof), oof["label"].to_numpy()
    return oof.assign(**{name: metric.function(probs, labels) for name, metric in COMPARED.items()})


def _natural(name: str) -> tuple[float, str]:
    """Numbers by size, before words."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _place(cells: Sequence[Cell]) -> dict[tuple[str, int, int], Cell]:
    placed: dict[tuple[str, int, int], Cell] = {}
    for cell in cells:
        if (other := placed.setdefault((cell.variant, cell.seed, cell.fold.number), cell)) is not cell:
            raise UserError(
                f"{other.fold.folder} and {cell.fold.folder} are both {cell}; give the paths of one of them"
            )
    return placed


def _require_same_settings(cells: Sequence[Cell], by: str) -> None:
    for cell in cells:
        if differences := describe_differences(cells[0].config, cell.config):
            both = f"{cells[0].fold.folder} and {cell.fold.folder}"
            raise UserError(f"{both} differ in more than {by} ({differences}); compare runs that differ in {by} alone")


def _require_same_rows(cells: Sequence[Cell], by: str) -> None:
    first: dict[int, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.fold.number, cell)
        if list(other.oof.columns) != list(cell.oof.columns):
            reason = f"classes {', '.join(other.oof.columns[3:-1])} and {', '.join(cell.oof.columns[3:-1])}"
        elif differ := _different_rows(other.oof, cell.oof):
            reason = f"{len(differ)} rows in one of them, of another label or in another group: {first_five(differ)}"
        elif cell.data_hash != cells[0].data_hash and by.partition(".")[0] not in CHANGES_ROWS:
            other, reason = cells[0], "the texts of the data have changed between them (data.sha256)"
        else:
            continue
        raise UserError(f"{other.fold.folder} and {cell.fold.folder} were not scored on the same rows: {reason}")


def _different_rows(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    both = first.merge(second, on=["id", "label", "group"], how="outer", indicator=True)
    return sorted(both.loc[both["_merge"] != "both", "id"].unique())
