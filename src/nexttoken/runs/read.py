"""Finished folds found on disk, read and checked: those of closed tasks here, those of open tasks in read_open."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.data.files import read_json
from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.probabilities import log_loss
from nexttoken.runs.fold_metrics import metrics_of_fold
from nexttoken.runs.folder import FOLD_NAME, FoldFolder, RunFolder
from nexttoken.runs.scored_runs import Data, Fold, Run, probabilities
from nexttoken.runs.seals import RECORDS, refuse_altered

NUMBERS = ("log_loss", "num_examples", "uniform_log_loss", "prior_log_loss", "baseline_log_loss")
TYPES = {"fold": int, "trained": bool, "task": str, "dataset": str, "is_published_data": bool}
AGAIN = "run the fold again"

log = logging.getLogger(__name__)


def read_runs(path: Path) -> list[Run]:
    """Every run of a closed task at or below `path`; a run scored on two data sets counts as two.

    Raises UserError where there is no finished fold of such a task, or a finished one is broken.
    """
    folders = finished_folds([path])
    closed = [folder for folder in folders if not is_open(folder)]
    if not closed:
        raise UserError(f"{path} holds runs that answer with texts: see python -m nexttoken judge {path}")
    if len(closed) < len(folders):
        log.warning("%d folds answer with texts: see python -m nexttoken judge", len(folders) - len(closed))
    return group_into_runs(path, map(read_fold, closed))


def group_into_runs(path: Path, read: Iterable[Fold]) -> list[Run]:
    """The runs that these folds make up, named from `path` on. Raises UserError for a row that two folds hold out."""
    grouped: dict[tuple[Path, Data], list[Fold]] = {}
    for fold in read:
        grouped.setdefault((fold.folder.parent, fold.data), []).append(fold)
    runs = []
    for (folder, data), folds in grouped.items():
        refuse_twice_scored(folder, pd.concat([fold.oof["id"] for fold in folds]))
        if other := [fold for fold in folds if list(fold.oof) != list(folds[0].oof)]:
            what = f"{other[0].folder / 'oof.csv'} has other columns than {folds[0].folder / 'oof.csv'}"
            what = f"{folder}: its folds were not scored on the same rows: {what}"
            raise UserError(f"{what}; {AGAIN}")
        name = folder.relative_to(path).as_posix() if folder != path else folder.resolve().name
        runs.append(Run(name, folder, data, tuple(folds)))
    return runs


def read_run(path: Path) -> Run:
    """The run of a closed task in this folder. Raises UserError where it is none, or was scored on two data sets."""
    folders = [checked_fold(fold.path) for fold in RunFolder(path).finished_folds()]
    if any(map(is_open, folders)):
        raise UserError(f"{path} answers with texts: see python -m nexttoken judge {path}")
    own = group_into_runs(path, map(read_fold, folders))
    if len(own) != 1:
        names = ", ".join(run.data.dataset for run in own)
        raise UserError(f"{path} has folds of the data sets {names}, expected one; train them under different names")
    return own[0]


def finished_folds(paths: Sequence[Path]) -> list[Path]:
    """The folders of finished folds at or below `paths`. Raises UserError where there is none."""
    if folders := find_folds(paths, "metrics.json"):
        return [*map(checked_fold, folders)]
    what = f"{first_five(paths)} holds no finished run (<name>/fold<k>/metrics.json)"
    raise UserError(f"{what}; run python train.py fold=0 first")


def checked_fold(folder: Path) -> Path:
    """Return the folder of a finished fold. Raises UserError where it was altered, or answered by other weights."""
    refuse_altered(folder, read_json(folder / "metrics.json"), RECORDS)
    if (fold := FoldFolder(folder)).is_outdated:
        run = fold.answered_by.path.parent
        raise UserError(f"{folder} was answered by another training of {run}; remove it, and ask again")
    return folder


def find_folds(paths: Sequence[Path], file: str) -> list[Path]:
    """The folders of folds at or below `paths` that have `file`, each once: runs by name, their folds by number."""
    folders: dict[Path, Path] = {}
    for path in paths:
        here = [f.parent for f in path.glob(f"**/fold*/{file}") if FOLD_NAME.fullmatch(f.parent.name)]
        for folder in sorted(here, key=lambda f: (f.parent, FoldFolder(f).number)):
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def is_open(folder: Path) -> bool:
    """True for a fold whose answers are texts."""
    return read_json(folder / "metrics.json").get("answers") == "texts"


def read_fold(folder: Path) -> Fold:
    """Read a finished fold of a closed task. Raises UserError for a file that is broken or contradicts another."""
    metrics = _read_metrics(folder / "metrics.json")
    if folder.name != f"fold{metrics['fold']}":
        raise UserError(f"{folder / 'metrics.json'} is of fold {metrics['fold']}; {AGAIN}")
    oof, scores = _read_oof(folder / "oof.csv", metrics), metrics_of_fold(folder, metrics)
    tags = _read_tags(folder / "rows.csv", dict.fromkeys(metric.by for metric in scores if metric.by), oof)
    return Fold(folder, metrics, scores, oof, _read_curve(folder / "curve.csv"), tags)


def read_groups(run_folder: Path) -> dict[str, int]:
    """The group of near-duplicates of each row, from folds.csv; none where there is no such file."""
    if not (path := run_folder / "folds.csv").exists():
        return {}
    folds = load_folds(path)
    return dict(zip(folds.ids, folds.groups.tolist(), strict=True))


def group_names(ids: Iterable[str], groups: Mapping[str, int]) -> list[str]:
    """A name for the group of each row; a row without one is a group by itself."""
    return [f"group {groups[id]}" if id in groups else f"row {id}" for id in ids]


def read_numbers(path: Path, types: Mapping[str, Callable[[str], Any]], others: Callable[[str], Any] = str) -> Any:
    """A CSV table with an id, the columns `types` of numbers, and `others`. Raises UserError for a cell that is none.

    Cells are converted by int() and float(): pandas' own parser may be off in the last digit.
    """
    text = read_table(path, ["id", *types], AGAIN)
    try:
        return text.assign(**{name: text[name].map(types.get(name, others)) for name in text.columns[1:]})
    except ValueError as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from error


def refuse_twice_scored(folder: Path, ids: "pd.Series[str]") -> None:
    """Raise UserError where a row is held out in more than one fold of a run."""
    if ids.duplicated().any():
        what = f"{folder}: {first_five(ids[ids.duplicated()].unique())} scored in more than one fold"
        raise UserError(f"{what}; its folds come from different splits, train them under different names")


def _read_metrics(path: Path) -> dict[str, Any]:
    metrics = read_json(path)
    if missing := [key for key in (*NUMBERS, *TYPES) if key not in metrics]:
        raise UserError(f"{path} has no {missing[0]!r}; {AGAIN}")
    bad = [key for key in NUMBERS if type(metrics[key]) not in (int, float)]
    bad += [key for key, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad := bad + [key for key, kind in TYPES.items() if type(metrics[key]) is not kind]:
        raise UserError(f"{path}: {', '.join(bad)} cannot be used; {AGAIN}")
    return metrics


def _read_oof(path: Path, metrics: dict[str, Any]) -> pd.DataFrame:
    oof = read_numbers(path, {"fold": int, "label": int}, others=float)
    try:
        loss = log_loss(probabilities(oof), oof["label"].to_numpy())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if len(oof) != metrics["num_examples"] or abs(loss - metrics["log_loss"]) > 1e-5:
        expected = f"metrics.json says {metrics['num_examples']} rows of {metrics['log_loss']:.5f}"
        raise UserError(f"{path} has {len(oof)} rows of log loss {loss:.5f}, {expected}; {AGAIN}")
    return oof


def _read_tags(path: Path, names: Iterable[str], oof: pd.DataFrame) -> dict[str, list[str]]:
    """The columns `names` of rows.csv in the order of `oof`. Raises UserError where it lacks one, or a row."""
    if not (names := list(names)):
        return {}
    table = read_table(path, ["id", *names], AGAIN).set_index("id")
    if missing := sorted(set(oof["id"]) - set(table.index)):
        raise UserError(f"{path} lacks the ids {first_five(missing)} of oof.csv beside it; {AGAIN}")
    return {name: table.loc[oof["id"], name].tolist() for name in names}


def _read_curve(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, dtype=float)
        own = next((name for name in map(str, table) if name[:4] == "dev_" and name != "dev_log_loss"), None)
        columns = {"refit": table.get("refit", 0.0), "dev_metric": table[own] if own else float("nan")}
        curve = table[["step", "train_loss", "dev_log_loss"]].assign(**columns)
    except (OSError, KeyError, ValueError) as error:  # ValueError: pandas' parser errors among them
        message = str(error).splitlines()[0]
        raise UserError(f"{path} is broken ({message}); delete it to do without the learning curve") from error
    curve = curve.replace([math.inf, -math.inf], math.nan)  # of a training that diverged
    curve = curve[curve["step"] >= 0]
    return curve.sort_values("step", kind="stable") if len(curve) else None
