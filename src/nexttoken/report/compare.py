"""Variants of one setting, compared on the same rows, folds and seeds; an unfair comparison is refused.

How the intervals are made, and how far they can be trusted: `nexttoken.metrics.intervals`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from nexttoken.errors import UserError, first_five, nearest
from nexttoken.metrics.intervals import NUM_RESAMPLES
from nexttoken.metrics.probabilities import METRICS
from nexttoken.report.markdown import plain
from nexttoken.report.metric_section import metric_section
from nexttoken.report.ranking import Scored
from nexttoken.report.whole_scores import columns_for, ranking_by
from nexttoken.runs.config import SCORED
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences, flatten
from nexttoken.runs.read import read_groups, read_runs, refuse_twice_scored
from nexttoken.runs.scored_runs import Fold, Run
from nexttoken.settings import INCIDENTAL
from nexttoken.types import Metric

COMPARED = {metric.name: metric for metric in METRICS if metric.name in ("log_loss", "accuracy")}  # means over rows
BOTH: Any = {"on": ["id", "label", "group"], "how": "outer", "indicator": True}  # shows which table lacks a row
CHANGES_ROWS = ("task", "transforms")  # comparing by these, the rows' fields differ on purpose


@dataclass(frozen=True)
class Cell:
    """One trained fold. `oof` has the `group` of folds.csv besides what oof.csv has."""

    fold: Fold
    variant: str
    seed: int
    config: dict[str, Any]  # without the key that is compared, the seed, and where the data lies
    data_hash: str
    oof: pd.DataFrame

    def __str__(self) -> str:
        return f"{self.variant} seed={self.seed} fold={self.fold.number}"


def compare(paths: Sequence[Path], by: str, baseline: str | None = None, metrics: Sequence[Metric] = ()) -> str:
    """Markdown: for each data set and metric a table, a sentence per difference, and the values of each seed.

    Without `metrics` these are the task's own, log loss and accuracy.
    Raises UserError where runs differ in more than `by`, in their rows, or where a variant lacks a seed or a fold.
    """
    cells = sorted(read_cells(paths, by), key=lambda cell: cell.fold.data)
    by_data = [list(group) for _, group in groupby(cells, key=lambda cell: cell.fold.data)]
    names = [{cell.variant for cell in group} for group in by_data]
    if all(len(variants) < 2 for variants in names):  # which is refused
        return _data_section(by_data[0], by, baseline, metrics)
    return "\n\n".join(
        _data_section(group, by, baseline, metrics)
        if len(variants) > 1
        else f"Not compared: all runs on {plain(group[0].fold.data.dataset)} have {plain(by)} {plain(*variants)}."
        for group, variants in zip(by_data, names, strict=True)
    )


def _data_section(cells: Sequence[Cell], by: str, baseline: str | None, metrics: Sequence[Metric]) -> str:
    own = {metric.name: metric for metric in (cells[0].fold.scores[0], *COMPARED.values())}
    metrics = metrics or list(own.values())
    scored, data = score_cells(cells, by, metrics), cells[0].fold.data
    first = scored.variants.index(_choose(scored.variants, baseline, by))
    folds, seeds = (", ".join(map(str, numbers)) for numbers in (sorted({c.fold.number for c in cells}), scored.seeds))
    parts = [
        f"## {plain(data.dataset)} ({plain(data.task)}) by {plain(by)}",
        f"{scored.num_rows:,} rows in {len(np.unique(scored.groups)):,} groups, folds {folds}, seeds {seeds}: "
        f"{len(cells)} trained folds that differ in `{by}` alone.",
    ]
    for ranking in (ranking_by(metric, scored) for metric in metrics):
        if np.isnan(ranking.by_seed).any():
            parts.append(f"{ranking.measure.title} cannot be computed on these rows.")
        else:
            parts += metric_section(ranking, first, by)
    notes = (
        "Mean over seeds of the score of all out-of-fold rows, ± its sample standard deviation over seeds. Intervals: "
        f"percentiles of {NUM_RESAMPLES:,} resamples of groups of rows and of seeds, the same for all variants; each "
        "holds for its own difference, none is corrected for how many there are. "
    )
    few = "With few seeds, intervals are too narrow where the spread over seeds makes up much of their width."
    one = "One seed: what another seed would change is in no interval."
    return "\n\n".join([*parts, notes + (one if len(scored.seeds) == 1 else few)])


def _choose(variants: Sequence[str], wanted: str | None, by: str) -> str:
    """The baseline: the first variant, the one of that name, or the only one whose name holds `wanted`."""
    if wanted is None or wanted in variants:
        return wanted or variants[0]
    part = wanted.removeprefix(f"{by}.").lower()
    named = [variant for variant in variants if part in variant.partition(" {")[0].lower()]  # before its settings
    matches = named or [variant for variant in variants if part in variant.lower()]
    if len(matches) != 1:
        reason = f"is a part of {', '.join(matches)}" if matches else f"is no variant; {nearest(wanted, variants)}"
        raise UserError(f"baseline={wanted} {reason}")
    return matches[0]


def read_cells(paths: Sequence[Path], by: str) -> list[Cell]:
    """Every finished fold below `paths`, once; runs asked in another way only where `by` is a setting of asking.

    `by` is a key of the configuration, or several with commas between, which differ together.
    Raises UserError for a broken one, or where no run has a key of `by`.
    """
    keys = by.split(",")
    if wrong := [key for key in keys if key in ("seed", "fold", "input_dir", *INCIDENTAL)]:
        raise UserError(f"by={by}: runs are not compared by {wrong[0]}; name a setting, such as head or adapter.r")
    every = any(key.partition(".")[0] in SCORED for key in keys)
    runs = [run for path in paths for run in read_runs(path) if every or not _is_asked_below(run, path)]
    folds = {fold.folder.resolve(): fold for run in runs for fold in run.folds}
    configs = {folder: FoldFolder(folder).config() for folder in folds}
    configs = {folder: config for folder, config in configs.items() if not config.get("blend")}  # of no variant
    leaves = {key for config in configs.values() for key in flatten(config)}
    known = {key for leaf in leaves for key in accumulate(leaf.split("."), "{}.{}".format)}  # nodes as well
    if unknown := [key for key in keys if key not in known]:
        raise UserError(f"no run has the key {unknown[0]!r} in its config.yaml; {nearest(unknown[0], known)}")
    groups = {folder: read_groups(folder) for folder in {folder.parent for folder in configs}}
    return [_cell(folds[folder], config, groups[folder.parent], by) for folder, config in configs.items()]


def _is_asked_below(run: Run, path: Path) -> bool:
    """True for a run asked in another way that `path` does not name itself."""
    return run.folder != path and RunFolder(run.folder).asked_of is not None


def _cell(fold: Fold, config: dict[str, Any], groups: Mapping[str, int], by: str) -> Cell:
    oof = fold.oof.assign(group=fold.oof["id"].map(groups))
    if (missing := oof["group"].isna()).any():
        table = fold.folder.parent / "folds.csv"
        what = f"{table} lacks the ids {first_five(sorted(oof.loc[missing, 'id']))} of {fold.folder}"
        raise UserError(f"{what}; train this run again with overwrite=true")
    variant = ", ".join(_name(_pop(config, key)) for key in by.split(","))
    seed = int(config.pop("seed", 0))
    config.pop("input_dir", None)
    path = fold.folder / "data.sha256"
    data_hash = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return Cell(fold, variant, seed, config, data_hash, oof)


def _pop(config: dict[str, Any], key: str) -> Any:
    """Take a dotted key out of a configuration; below a node that is off (`adapter: null`) its value is None."""
    *path, last = key.split(".")
    node: Any = config
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node.pop(last, None) if isinstance(node, dict) else None


def _name(value: Any) -> str:
    """A value as the name of a variant: `none`, `16`, or the class of a node with its other keys."""
    if not isinstance(value, Mapping):
        return "none" if value is None else str(value)
    others = {key: child for key, child in value.items() if key != "_target_"}
    text = yaml.safe_dump(others, default_flow_style=True, width=10_000).strip() if others else ""
    return f"{str(value.get('_target_', '')).rpartition('.')[2]} {text}".strip()


def score_cells(cells: Sequence[Cell], by: str, metrics: Sequence[Metric]) -> Scored:
    """The columns that `metrics` take of one data set's cells: every variant has every seed and fold, on the same rows.

    Raises UserError naming what differs besides `by`, the rows that differ, or the runs that are missing.
    """
    placed: dict[tuple[str, int, int], Cell] = {}
    for cell in cells:
        if differences := describe_differences(cells[0].config, cell.config):
            both = f"{cells[0].fold.folder} and {cell.fold.folder} differ in more than {by}"
            raise UserError(f"{both} ({differences}); compare runs that differ in {by} alone")
        other = placed.setdefault((cell.variant, cell.seed, cell.fold.number), cell)
        if other is not cell:
            both = f"{other.fold.folder} and {cell.fold.folder} are both {cell}"
            raise UserError(f"{both}; give the paths of one of them")
    _require_same_rows(cells, by)
    dataset = cells[0].fold.data.dataset
    names, seeds, folds = (sorted(set(axis), key=_natural) for axis in zip(*placed, strict=True))
    if len(names) < 2:
        raise UserError(f"all runs on {dataset} have {by} {names[0]}: nothing to compare; train another variant")
    if missing := [place for place in product(names, seeds, folds) if place not in placed]:
        shown = first_five(f"{name} seed={seed} fold={fold}" for name, seed, fold in missing)
        raise UserError(f"not trained or not finished on {dataset}: {shown}; train them first")
    tables = {}
    for place in product(names, seeds):
        own = [placed[*place, fold] for fold in folds]
        run = Run(place[0], own[0].fold.folder.parent, own[0].fold.data, tuple(cell.fold for cell in own))
        columns: dict[str, np.ndarray] = {}
        for metric in metrics:
            columns |= columns_for(metric, run.scored(metric))
        oof = pd.concat([cell.oof for cell in own])
        tables[place] = oof.assign(**columns)
    refuse_twice_scored(cells[0].fold.folder.parent, oof["id"])
    return Scored.of(tables, tuple(columns), same="label")


def _changes_rows(by: str) -> bool:
    return any(key.partition(".")[0] in CHANGES_ROWS for key in by.split(","))


def _natural(name: Any) -> tuple[float, str]:
    """Numbers by size, before words."""
    try:
        return float(name), str(name)
    except ValueError:
        return float("inf"), str(name)


def _require_same_rows(cells: Sequence[Cell], by: str) -> None:
    first: dict[int, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.fold.number, cell)
        if list(other.oof.columns) != list(cell.oof.columns):
            reason = f"classes {', '.join(other.oof.columns[3:-1])} and {', '.join(cell.oof.columns[3:-1])}"
        elif differ := sorted(other.oof.merge(cell.oof, **BOTH).query("_merge != 'both'")["id"].unique()):
            reason = f"{len(differ)} rows in one of them, of another label or in another group: {first_five(differ)}"
        elif cell.data_hash != cells[0].data_hash and not _changes_rows(by):
            other, reason = cells[0], "the texts of the data have changed between them (data.sha256)"
        else:
            continue
        raise UserError(f"{other.fold.folder} and {cell.fold.folder} were not scored on the same rows: {reason}")
