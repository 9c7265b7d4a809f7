"""Finished folds of open tasks read back from disk: what each held-out answer cost, and which variant each run is."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.files import read_json
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.texts import TEXT_METRICS
from nexttoken.runs.folder import FoldFolder, describe_differences
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read import (
    AGAIN,
    finished_folds,
    group_names,
    is_open,
    read_groups,
    read_numbers,
    refuse_twice_scored,
)  # fmt: skip
from nexttoken.types import DIALOGUE, Example

COSTS = ("nll", "num_tokens", "num_characters")
log = logging.getLogger(__name__)
SEED_IN_NAME = re.compile(r"[_-]?seed[-_=]?\d+")
HASHED = re.compile(r"-[0-9a-f]{8}$")  # the end of a name that run_names.default_name cut


@dataclass(frozen=True)
class OpenRun:
    """A run of an open task; runs that differ by seed alone are one variant.

    `folds` has the held-out answers of each finished fold: id, row, nll (nats), num_tokens, num_characters, group.
    `row` is the id in folds.csv: another than `id` where a row was scored in several pieces, as windows of a dialogue.
    """

    folder: Path
    task: str
    variant: str
    seed: int
    folds: Mapping[FoldFolder, pd.DataFrame]

    def __str__(self) -> str:
        return f"{self.variant} seed={self.seed}"

    @property
    def rows(self) -> pd.DataFrame:
        """All folds' held-out answers, with their `fold`. Raises UserError for one scored twice."""
        rows = pd.concat([rows.assign(fold=fold.number) for fold, rows in self.folds.items()], ignore_index=True)
        refuse_twice_scored(self.folder, rows["id"])
        return rows


def read_open_runs(paths: Sequence[Path]) -> list[OpenRun]:
    """Every open run at or below `paths`, once; folders without a finished fold are passed over.

    Raises UserError where there is none, a run answers with labels, or two have the same variant and seed.
    """
    folds = finished_folds(paths)
    if closed := [fold for fold in folds if not is_open(fold)]:
        reads_it = f"python -m nexttoken report {closed[0].parent} reads it"
        raise UserError(f"{closed[0]} answers with labels, not with texts: {reads_it}")
    return open_runs_of(folds)


def open_runs_of(fold_folders: Sequence[Path]) -> list[OpenRun]:
    """The runs that these finished folds make up. Raises UserError for broken files, or two of a variant and seed."""
    by_run: dict[Path, list[FoldFolder]] = {}
    for fold in fold_folders:
        by_run.setdefault(fold.parent, []).append(FoldFolder(fold))
    runs: dict[str, OpenRun] = {}
    for folder, variant in variant_names(list(by_run)).items():
        groups, task = read_groups(folder), read_json(by_run[folder][0].path / "metrics.json").get("task")
        folds = {one: _read_answers(one.path / "oof.csv", groups) for one in by_run[folder]}
        seed = int(_config(folder).get("seed") or 0)
        run = OpenRun(folder, str(task or folder.parent.name), variant, seed, folds)
        if (other := runs.setdefault(str(run), run)) is not run:
            raise UserError(f"{other.folder} and {folder} are both {run}; give the path of one of them")
    return list(runs.values())


def _read_answers(path: Path, groups: Mapping[str, int]) -> pd.DataFrame:
    """Raises UserError for an oof.csv that cannot be used."""
    rows = read_numbers(path, dict.fromkeys(COSTS, float))
    sound = np.isfinite(rows["nll"]) & (rows["num_tokens"] >= 1) & (rows["num_characters"] >= 1)
    if not sound.all():
        bad = first_five(rows.loc[~sound, "id"])
        raise UserError(f"{path}: rows {bad} lack a loss of at least one token and character; {AGAIN}")
    rows = rows.assign(row=rows["row"] if "row" in rows else rows["id"])
    return rows.assign(group=group_names(rows["row"], groups))[["id", "row", *COSTS, "group"]]


def variant_names(folders: Sequence[Path]) -> dict[Path, str]:
    """The name of each run's variant: its folder without the seed, or with its parent where another has the same.

    The differences between variants of the same name are logged: a key that a later version added makes two of one.
    """
    variants: list[tuple[dict[str, Any], list[Path]]] = []  # runs that differ by seed alone, and what they share
    for folder in folders:
        config = _config(folder)
        # A seed below another key follows the run's; that of the split tells which rows are held out.
        config = _without_seeds(config) | {"split": config.get("split")}
        same = [members for other, members in variants if not describe_differences(other, config)]
        if same:
            same[0].append(folder)
        else:
            variants.append((config, [folder]))
    bare = [_bare_name(members) for _, members in variants]
    names = []
    for (config, members), name in zip(variants, bare, strict=True):
        first, others = variants[bare.index(name)]
        if others is not members:
            differences = describe_differences(first, config)
            log.warning("%s and %s are two variants: %s", others[0], members[0], differences)
        names.append(name if bare.count(name) == 1 else "/".join(members[0].resolve().parts[-2:]))
    by_folder = {f: name for (_, members), name in zip(variants, short_names(names), strict=True) for f in members}
    return {folder: by_folder[folder] for folder in folders}


def _bare_name(folders: Sequence[Path]) -> str:
    """The folders' name without its seed; the first one's where nothing else is left, or others differ."""
    names = [folder.resolve().name for folder in folders]
    bare = {SEED_IN_NAME.sub("", name) for name in names}
    return (bare.pop() if len(bare) == 1 else "") or names[0]


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them have, as long as something different is left of each.

    A name that was too long for a folder ends in a hash; what stands behind its last shared word is cut at random.
    """
    split = [name.split("_") for name in names]
    shared = set.intersection(*map(set, split)) if len(split) > 1 else set()
    short = []
    for words, name in zip(split, names, strict=True):
        if HASHED.search(name) and shared & {*words}:
            words = words[: max(place for place, word in enumerate(words) if word in shared)]
        short.append("_".join(word for word in words if word not in shared))
    return short if all(short) and len({*short}) == len(short) else list(names)


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of the first fold whose config.yaml can be read. Raises UserError where none can."""
    *others, last = sorted(folder.glob("fold*/config.yaml")) or [folder / "fold0" / "config.yaml"]
    for path in others:
        with suppress(UserError):
            return FoldFolder(path.parent).config()
    return FoldFolder(last.parent).config()


def _without_seeds(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_seeds(child) for key, child in node.items() if key != "seed"}
    return [_without_seeds(child) for child in node] if isinstance(node, list) else node


@dataclass(frozen=True)
class Outputs:
    """Texts that a run generated, and the examples they answer, both by id; the examples hold the references.

    A dialogue has an example for each of its answers, `<id>#<k>`.
    """

    texts: Mapping[str, str]
    examples: Mapping[str, Example]


def saved_outputs(run: OpenRun, loaded: LoadedRun) -> Outputs:
    """The outputs in the folds' generated.jsonl, and all held-out examples.

    Raises UserError where generated.jsonl is broken, or the run's data is missing.
    """
    texts: dict[str, str] = {}
    examples: dict[str, Example] = {}
    for fold in run.folds:
        held_out = loaded.held_out(fold)
        texts |= texts_by_id(fold)
        if any(DIALOGUE in example.fields for example in held_out):
            held_out = loaded.parts.inference.views(held_out, [])  # without passages or demonstrations
        examples |= {example.id: example for example in held_out}
    return Outputs({row_id: text for row_id, text in texts.items() if row_id in examples}, examples)


def texts_by_id(folder: FoldFolder) -> dict[str, str]:
    saved = folder.texts()
    return dict(zip(saved.ids, saved.texts, strict=True))


def score_texts(run: OpenRun, outputs: Outputs) -> pd.DataFrame:
    """A table of id, group, costs, fold; output, its text scores and `mark`, NaN for rows without an output."""
    rows = run.rows
    rows["output"] = rows["id"].map(outputs.texts).astype(object)
    references = rows["id"].map({row_id: example.answer for row_id, example in outputs.examples.items()})
    known = rows["output"].notna() & references.notna()
    for metric in TEXT_METRICS:
        rows[metric.name] = np.nan
        rows.loc[known, metric.name] = metric.function(rows.loc[known, "output"].tolist(), references[known].tolist())
    return rows.assign(mark=np.nan)
