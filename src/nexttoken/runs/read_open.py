"""Finished folds of open tasks read back from disk: what each held-out answer cost, and which variant each run is."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.files import read_json
from nexttoken.errors import UserError, first_five
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.identity import describe_differences
from nexttoken.runs.read import (
    AGAIN,
    finished_folds,
    group_names,
    is_open,
    read_groups,
    read_numbers,
    refuse_twice_scored,
)  # fmt: skip

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
        refuse_twice_scored(self.folder, rows["id"])
        return rows


def read_open_runs(paths: Sequence[Path]) -> list[OpenRun]:
    """Every open run at or below `paths`, once; folders without a finished fold are passed over.

    Raises UserError where there is none, a run answers with labels, or two have the same variant and seed.
    """
    by_run: dict[Path, list[Path]] = {}
    for fold in finished_folds(paths):
        by_run.setdefault(fold.parent, []).append(fold)
        if not is_open(fold):
            raise UserError(
                f"{fold} answers with labels, not with texts: python -m nexttoken report {fold.parent} reads it"
            )
    names = variant_names(list(by_run))
    runs = [_read_run(folder, name, by_run[folder]) for folder, name in names.items()]
    placed: dict[tuple[str, int], OpenRun] = {}
    for run in runs:
        if (other := placed.setdefault((run.variant, run.seed), run)) is not run:
            raise UserError(f"{other.folder} and {run.folder} are both {run}; give the path of one of them")
    return runs


@dataclass(frozen=True)
class Variant:
    """Runs that differ by seed alone, and the configuration that they share."""

    config: dict[str, Any]
    folders: list[Path]

    @property
    def bare_name(self) -> str:
        """The folders' name without its seed; the first one's where nothing else is left, or others differ."""
        names = [folder.resolve().name for folder in self.folders]
        bare = {SEED_IN_NAME.sub("", name) for name in names}
        return (bare.pop() if len(bare) == 1 else "") or names[0]


def variant_names(folders: Sequence[Path]) -> dict[Path, str]:
    """The name of each run's variant: its folder without the seed, or with its parent where another has the same.

    The differences between variants of the same name are logged: a key that a later version added makes two of one.
    """
    variants = _variants(folders)
    bare = [variant.bare_name for variant in variants]
    names = []
    for variant, name in zip(variants, bare, strict=True):
        if (first := variants[bare.index(name)]) is not variant:
            differences = describe_differences(first.config, variant.config)
            log.warning("%s and %s are two variants: %s", first.folders[0], variant.folders[0], differences)
        names.append(name if bare.count(name) == 1 else "/".join(variant.folders[0].resolve().parts[-2:]))
    by_folder = {f: name for v, name in zip(variants, short_names(names), strict=True) for f in v.folders}
    return {folder: by_folder[folder] for folder in folders}


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
        config = _config(folder)
        # A seed below another key follows the run's; that of the split tells which rows are held out.
        config = _without_seeds(config) | {"split": config.get("split")}
        if same := [variant for variant in variants if not describe_differences(variant.config, config)]:
            same[0].folders.append(folder)
        else:
            variants.append(Variant(config, [folder]))
    return variants


def _config(folder: Path) -> dict[str, Any]:
    return FoldFolder(sorted(folder.glob("fold*/config.yaml"))[0].parent).config()


def _without_seeds(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_seeds(child) for key, child in node.items() if key != "seed"}
    return [_without_seeds(child) for child in node] if isinstance(node, list) else node


def _read_run(folder: Path, variant: str, folds: Sequence[Path]) -> OpenRun:
    groups = read_groups(folder)
    read = [_read_fold(fold, groups) for fold in folds]
    task = str(read_json(folds[0] / "metrics.json").get("task", folder.parent.name))
    return OpenRun(folder, task, variant, int(_config(folder).get("seed") or 0), tuple(read))


def _read_fold(folder: Path, groups: Mapping[str, int]) -> OpenFold:
    """Raises UserError for an oof.csv that cannot be used."""
    path = folder / "oof.csv"
    rows = read_numbers(path, dict.fromkeys(COSTS, float))
    sound = np.isfinite(rows["nll"]) & (rows["num_tokens"] >= 1) & (rows["num_characters"] >= 1)
    if not sound.all():
        bad = first_five(rows.loc[~sound, "id"])
        raise UserError(f"{path}: rows {bad} lack a loss of at least one token and character; {AGAIN}")
    rows = rows.assign(row=rows["row"] if "row" in rows else rows["id"])
    rows = rows.assign(group=group_names(rows["row"], groups))[["id", "row", *COSTS, "group"]]
    return OpenFold(folder, int(folder.name.removeprefix("fold")), rows)
