"""The trained folds of a comparison: which variant, seed and fold each of them is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError, first_five, nearest
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.read import Data, Fold, read_runs
from nexttoken.settings import INCIDENTAL

REPLICATES = ("seed", "fold")


@dataclass(frozen=True)
class Cell:
    """One trained fold. `oof` is sorted by id and has `group`, the column of folds.csv, besides what oof.csv has."""

    folder: Path
    data: Data
    variant: str
    seed: int
    fold: int
    config: dict[str, Any]  # without the key that is compared, the seed, and where the data lies
    data_hash: str
    oof: pd.DataFrame

    def __str__(self) -> str:
        return f"{self.variant} seed={self.seed} fold={self.fold}"


def read_cells(paths: Sequence[Path], by: str) -> list[Cell]:
    """Every finished fold below `paths`, once. Raises UserError for a broken one, or where no run has the key `by`."""
    if by in (*REPLICATES, *INCIDENTAL, "input_dir"):
        raise UserError(f"--by {by}: runs are not compared by {by}; name a setting, such as head or adapter.r")
    folds = {fold.folder.resolve(): fold for path in paths for run in read_runs(path) for fold in run.folds}
    configs = {folder: FoldFolder(folder).config() for folder in folds}
    known = {key for config in configs.values() for key in _keys(config)}
    if by not in known:
        raise UserError(f"no run has the key {by!r} in its config.yaml; {nearest(by, known)}")
    groups = {folder: _groups(folder / "folds.csv") for folder in {folder.parent for folder in folds}}
    return [_cell(fold, configs[folder], groups[folder.parent], by) for folder, fold in folds.items()]


def _cell(fold: Fold, config: dict[str, Any], groups: "pd.Series[int]", by: str) -> Cell:
    oof = fold.oof.assign(group=fold.oof["id"].map(groups)).sort_values("id", ignore_index=True)
    if oof["group"].isna().any():
        strangers = oof.loc[oof["group"].isna(), "id"]
        raise UserError(f"{fold.folder.parent / 'folds.csv'} lacks the ids {first_five(strangers)} of {fold.folder}")
    compared, path = _take(config, by), fold.folder / "data.sha256"
    rest = {key: value for key, value in compared.rest.items() if key not in ("seed", "input_dir")}
    data_hash = path.read_text(encoding="utf-8") if path.exists() else ""
    variant, seed = _name(compared.value), int(config.get("seed", 0))
    return Cell(fold.folder, fold.data, variant, seed, fold.number, rest, data_hash, oof)


@dataclass(frozen=True)
class Taken:
    """The value of a key, and the configuration without it."""

    value: Any
    rest: dict[str, Any]


def _take(config: Mapping[str, Any], key: str) -> Taken:
    """Take out a dotted key; below a node that is off (`adapter: null`) its value is None."""
    first, _, below = key.partition(".")
    rest = {name: child for name, child in config.items() if name != first}
    child = config.get(first)
    if not below or not isinstance(child, Mapping):
        return Taken(None, dict(config)) if below else Taken(child, rest)
    inner = _take(child, below)
    return Taken(inner.value, rest | {first: inner.rest})


def _keys(node: Any, path: str = "") -> set[str]:
    """Every dotted key, those of nodes as well."""
    children = node.items() if isinstance(node, Mapping) else ()
    return {path} - {""} | {key for name, child in children for key in _keys(child, f"{path}.{name}".lstrip("."))}


def _name(value: Any) -> str:
    """A value as the name of a variant: `none`, `16`, the class of a node with a `_target_` and what else it holds."""
    if not isinstance(value, Mapping):
        return "none" if value is None else str(value)
    others = {key: child for key, child in value.items() if key != "_target_"}
    text = yaml.safe_dump(others, default_flow_style=True, width=10_000).strip() if others else ""
    return f"{str(value.get('_target_', '')).rpartition('.')[2]} {text}".strip()


def _groups(path: Path) -> "pd.Series[int]":
    folds = load_folds(path)
    return pd.Series(folds.groups, index=list(folds.ids))
