"""Finished folds of open tasks read back from disk: what each held-out answer cost, and which variant each run is."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.data.files import read_json
from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError, first_five
from nexttoken.runs.folder import FOLD_NAME, FoldFolder
from nexttoken.runs.identity import describe_differences

AGAIN = "run the fold again"
COSTS = ("nll", "num_tokens", "num_characters")
log = logging.getLogger(__name__)
SEED_IN_NAME = re.compile(r"[_-]?seed[-_=]?\d+")
HASHED = re.compile(r"-[0-9a-f]{8}$")  # the end of a name that build.default_name cut


@dataclass(frozen=True)
class OpenFold:
    """One finished fold. `rows`: id, row, group, nll (nats), num_tokens, num_characters of every held-out answer.

    `row` is the id in folds.csv: another than `id` where a row was scored in several pieces, as windows of a dialogue.
    """

    folder: Path
    number: int
    rows: pd.DataFrame


@dataclass(frozen=True)
class OpenRun:
    """A run of an open task; runs that differ by seed alone are one variant."""

    folder: Path
    task: str
    variant: str
    seed: int
    folds: tuple[OpenFold, ...]

    def __str__(self) -> str:
        return f"{self.variant} seed={self.seed}"

    @property
    def rows(self) -> pd.DataFrame:
        """All folds' held-out answers, with their `fold`. Raises UserError for one scored twice."""
        rows = pd.concat([fold.rows.assign(fold=fold.number) for fold in self.folds], ignore_index=True)
        if (twice := rows["id"].duplicated()).any():
            raise UserError(
                f"{self.folder}: {first_five(rows.loc[twice, 'id'])} scored in more than one fold; its folds come from "
                "different splits, train them under different names"
            )
        return rows


def is_open(metrics: Mapping[str, Any]) -> bool:
    """Whether a fold's metrics.json is of written answers."""
    return metrics.get("answers") == "texts"


def read_open_runs(paths: Sequence[Path]) -> list[OpenRun]:
    """Every open run at or below `paths`, once; folders without a finished fold are passed over.

    Raises UserError where there is none, a run answers with labels, or two have the same variant and seed.
    """
    marks = {mark.resolve(): mark for path in paths for mark in sorted(path.glob("**/fold*/metrics.json"))}
    folders = dict.fromkeys(mark.parent.parent for mark in marks.values() if FOLD_NAME.fullmatch(mark.parent.name))
    if not folders:
        raise UserError(
            f"{first_five(paths)}: no finished run (<name>/fold<k>/metrics.json); train one first: "
            "python train.py task=dialogue fold=0"
        )
    names = variant_names(list(folders))
    runs = [_read_run(folder, name) for folder, name in names.items()]
    placed: dict[tuple[str, int], OpenRun] = {}
    for run in runs:
        if (other := placed.setdefault((run.variant, run.seed), run)) is not run:
            raise UserError(f"{other.folder} and {run.folder} are both {run}; give the path of one of them")
    return runs


@dataclass(frozen=True)
class Variant:
    """Runs that differ by seed alone, and the configuration that they share."""

    config: dict[str, Any]
    folders: tuple[Path, ...]

    @property
    def bare_name(self) -> str:
        """The folders' name without its seed; the first one's where nothing else is left, or others are called else."""
        names = [folder.resolve().name for folder in self.folders]
        bare = {SEED_IN_NAME.sub("", name) for name in names}
        return (bare.pop() if len(bare) == 1 else "") or names[0]

    @property
    def long_name(self) -> str:
        """The first folder's name with its parent's."""
        return "/".join(self.folders[0].resolve().parts[-2:])


def variant_names(folders: Sequence[Path]) -> dict[Path, str]:
    """What each run's variant is called: its folder without the seed, or the whole name where another has the same.

    How runs of the same name differ is logged: a key that a later version added makes two variants of one.
    """
    variants = _variants(folders)
    by_name: dict[str, list[Variant]] = {}
    for variant in variants:
        by_name.setdefault(variant.bare_name, []).append(variant)
    for first, *others in by_name.values():
        for other in others:
            differences = describe_differences(first.config, other.config)
            log.warning("%s and %s are two variants: %s", first.folders[0], other.folders[0], differences)
    whole = [v.bare_name if len(by_name[v.bare_name]) == 1 else v.long_name for v in variants]
    names = {folder: name for v, name in zip(variants, short_names(whole), strict=True) for folder in v.folders}
    return {folder: names[folder] for folder in folders}


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them have, as long as something different is left of each.

    A name that was too long for a folder ends in a hash; what stands behind its last shared word is cut at random.
    """
    words = [name.split("_") for name in names]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    short = []
    for own, name in zip(words, names, strict=True):
        if HASHED.search(name) and shared & {*own}:
            own = own[: max(place for place, word in enumerate(own) if word in shared)]
        short.append("_".join(word for word in own if word not in shared))
    return short if all(short) and len({*short}) == len(short) else list(names)


def _variants(folders: Sequence[Path]) -> list[Variant]:
    variants: list[Variant] = []
    for folder in folders:
        config = {"split": _config(folder).get("split"), **_without_seeds(_config(folder))}
        same = (n for n, variant in enumerate(variants) if not describe_differences(variant.config, config))
        if (place := next(same, None)) is None:
            variants.append(Variant(config, (folder,)))
        else:
            variants[place] = replace(variants[place], folders=(*variants[place].folders, folder))
    return variants


def _config(folder: Path) -> dict[str, Any]:
    return FoldFolder(sorted(folder.glob("fold*/config.yaml"))[0].parent).config()


def _without_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    """A seed below another key follows the run's own as a rule; that of the split tells which rows are held out."""
    return {key: _seedless(child) for key, child in config.items() if key not in ("seed", "split")}


def _seedless(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _seedless(child) for key, child in node.items() if key != "seed"}
    return [_seedless(child) for child in node] if isinstance(node, list) else node


def _finished(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob("fold*/metrics.json") if FOLD_NAME.fullmatch(path.parent.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("fold")))


def _read_run(folder: Path, variant: str) -> OpenRun:
    metrics = {path: read_json(path / "metrics.json") for path in _finished(folder)}
    if closed := [path for path, saved in metrics.items() if not is_open(saved)]:
        raise UserError(
            f"{closed[0]} answers with labels, not with texts: python -m nexttoken report {folder} reads it"
        )
    groups, table = {}, folder / "folds.csv"
    if table.exists():
        folds = load_folds(table)
        groups = dict(zip(folds.ids, folds.groups.tolist(), strict=True))
    task = str(next(iter(metrics.values())).get("task", folder.parent.name))
    read = [replace(fold, rows=_grouped(fold.rows, groups)) for fold in map(_read_fold, metrics)]
    return OpenRun(folder, task, variant, int(_config(folder).get("seed") or 0), tuple(read))


def _grouped(rows: pd.DataFrame, groups: Mapping[str, int]) -> pd.DataFrame:
    """Rows with the group of folds.csv; a row that it does not name is a group by itself."""
    return rows.assign(group=[f"group {groups[row]}" if row in groups else f"row {row}" for row in rows["row"]])


def _read_fold(folder: Path) -> OpenFold:
    """Raises UserError for an oof.csv that cannot be used."""
    path = folder / "oof.csv"
    text = read_table(path, ["id", *COSTS], AGAIN)
    try:
        names = {"id": text["id"], "row": text["row"] if "row" in text else text["id"]}
        rows = pd.DataFrame({**names, **{name: text[name].map(float) for name in COSTS}})
    except ValueError as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from error
    sound = np.isfinite(rows["nll"]) & (rows["num_tokens"] >= 1) & (rows["num_characters"] >= 1)
    if not sound.all():
        bad = first_five(rows.loc[~sound, "id"])
        raise UserError(f"{path}: rows {bad} lack a loss of at least one token and character; {AGAIN}")
    return OpenFold(folder, int(folder.name.removeprefix("fold")), rows)
