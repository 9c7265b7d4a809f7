"""Finished folds read back from disk: what the tables and plots are made of, checked before anything is drawn."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.probabilities import log_loss
from nexttoken.runs.folder import FOLD_NAME
from nexttoken.runs.read_open import is_open

NUMBERS = ("log_loss", "accuracy", "num_examples", "uniform_log_loss", "prior_log_loss", "baseline_log_loss")
OPTIONAL = ("best_possible_log_loss", "chance_accuracy", "baseline_accuracy")
RANKED = ("map_at_3", "chance_map_at_3", "baseline_map_at_3")  # where options are ranked: in quizzes
REFERENCES = {  # the horizontal lines and rows that every score stands beside
    "uniform_log_loss": "uniform guess",
    "prior_log_loss": "class prior",
    "baseline_log_loss": "length/overlap baseline",  # of a pair's answers; a quiz has another
    "best_possible_log_loss": "best possible",
}
AGAIN = "run the fold again"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Data:
    """The rows that a fold was scored on; scores on different data never share a mean."""

    task: str
    dataset: str
    is_published: bool  # the competition's own rows, which the published scores were made on
    is_quiz: bool = False  # questions with options, which have tables of their own
    has_published_scores: bool = False  # of its task, on whatever rows

    @property
    def references(self) -> dict[str, str]:
        """The references' keys in metrics.json, and their names for this task."""
        return REFERENCES | ({"baseline_log_loss": "option baseline"} if self.is_quiz else {})


@dataclass(frozen=True, slots=True)
class Fold:
    """One finished fold. `oof` has id, fold, label and one probability column per class; `curve` may be absent."""

    folder: Path
    metrics: dict[str, Any]
    oof: pd.DataFrame
    curve: pd.DataFrame | None

    @property
    def number(self) -> int:
        return self.metrics["fold"]

    @property
    def data(self) -> Data:
        return data_of(self.metrics)


@dataclass(frozen=True, slots=True)
class Run:
    """The finished folds of one run folder that share their data, in order."""

    name: str
    folder: Path
    data: Data
    folds: tuple[Fold, ...]

    @property
    def title(self) -> str:
        trained = [fold.metrics["trained"] for fold in self.folds]
        return self.name + ("" if all(trained) else " (partly zero-shot)" if any(trained) else " (zero-shot)")

    @property
    def losses(self) -> dict[int, float]:
        """Each fold's log loss by its number."""
        return {fold.number: fold.metrics["log_loss"] for fold in self.folds}

    def weighted(self, key: str) -> float | None:
        """The mean of a metric over the run's rows; None where a fold does not have it."""
        values = [fold.metrics.get(key) for fold in self.folds]
        if None in values:
            return None
        return float(np.average(values, weights=[fold.metrics["num_examples"] for fold in self.folds]))  # type: ignore[arg-type]

    @property
    def oof(self) -> pd.DataFrame:
        """All folds' out-of-fold rows, plus `loss`, each row's own log loss."""
        oof = pd.concat([fold.oof for fold in self.folds], ignore_index=True)
        return oof.assign(loss=row_losses(oof))


def read_runs(path: Path) -> list[Run]:
    """Every run below `path`, which is a run folder or holds some; a run scored on two data sets counts as two.

    Runs that answer with texts are left to the judge. Raises UserError where there is no finished fold but of those,
    or a finished one is broken.
    """
    marks = path.glob("**/fold*/metrics.json")
    folders = sorted(mark.parent for mark in marks if FOLD_NAME.fullmatch(mark.parent.name))
    if not folders:
        raise UserError(f"{path} holds no finished run (<name>/fold<k>/metrics.json); run python train.py fold=0 first")
    closed = [folder for folder in folders if not _is_open(folder)]
    if not closed:
        raise UserError(f"{path} holds runs that answer with texts: see python -m nexttoken judge {path}")
    if len(closed) < len(folders):
        log.warning("%d folds answer with texts: see python -m nexttoken judge", len(folders) - len(closed))
    grouped: dict[tuple[Path, Data], list[Fold]] = {}
    for fold in map(read_fold, closed):
        grouped.setdefault((fold.folder.parent, fold.data), []).append(fold)
    return [_run(path, folder, data, folds) for (folder, data), folds in grouped.items()]


def read_fold(folder: Path) -> Fold:
    """Read one finished fold folder. Raises UserError for a file that is missing, broken, or contradicts another."""
    metrics = _read_metrics(folder / "metrics.json")
    if folder.name != f"fold{metrics['fold']}":
        raise UserError(f"{folder / 'metrics.json'} is of fold {metrics['fold']}; {AGAIN}")
    oof = _read_oof(folder / "oof.csv", metrics)
    curve_path = folder / "curve.csv"
    return Fold(folder, metrics, oof, _read_curve(curve_path) if curve_path.exists() else None)


def data_of(metrics: Mapping[str, Any]) -> Data:
    """What metrics.json says of the rows; earlier versions knew quizzes, and one task with published scores."""
    is_quiz = metrics.get("map_at_3") is not None
    has_published = metrics.get("has_published_scores", not is_quiz)
    is_published = has_published and metrics["is_published_data"]
    return Data(metrics["task"], metrics["dataset"], is_published, is_quiz, has_published)


def probabilities(oof: pd.DataFrame) -> np.ndarray:
    """The class columns of an oof table as (N, K) float64."""
    return oof.drop(columns=["id", "fold", "label", "loss"], errors="ignore").to_numpy(np.float64)


def row_losses(oof: pd.DataFrame) -> np.ndarray:
    """-log p of each row's label, (N,); their mean is the log loss. Clipped like scikit-learn's."""
    of_label = probabilities(oof)[np.arange(len(oof)), oof["label"]]
    return -np.log(np.clip(of_label, np.finfo(np.float64).eps, 1))


def _is_open(folder: Path) -> bool:
    """Whether its answers are texts; a metrics.json that cannot be read is named by whoever reads it whole."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(metrics, dict) and is_open(metrics)


def _run(path: Path, folder: Path, data: Data, folds: list[Fold]) -> Run:
    name = folder.relative_to(path).as_posix() if folder != path else folder.resolve().name
    run = Run(name, folder, data, tuple(sorted(folds, key=lambda fold: fold.number)))
    ids = run.oof["id"]
    if ids.duplicated().any():
        raise UserError(
            f"{folder}: {first_five(ids[ids.duplicated()].unique())} scored in more than one fold; "
            "its folds come from different splits, run them under different names"
        )
    return run


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        bad = [key for key in NUMBERS if not math.isfinite(metrics[key])]
        bad += [key for key in (*OPTIONAL, *RANKED) if metrics.get(key) is not None and not math.isfinite(metrics[key])]
        typed = {"fold": int, "trained": bool, "task": str, "dataset": str, "is_published_data": bool}
        bad += [key for key, kind in typed.items() if type(metrics[key]) is not kind]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is broken ({error}); {AGAIN}") from error
    except KeyError as error:
        raise UserError(f"{path} has no {error.args[0]!r}; {AGAIN}") from error
    if bad:
        raise UserError(f"{path}: {', '.join(bad)} cannot be used; {AGAIN}")
    return metrics


def _read_oof(path: Path, metrics: dict[str, Any]) -> pd.DataFrame:
    text = read_table(path, ["id", "fold", "label"], AGAIN)
    classes = [column for column in text.columns if column not in ("id", "fold", "label")]
    try:
        numbers = {column: text[column].map(int) for column in ("fold", "label")}
        # float() and not pandas' parser, which may be off in the last digit
        oof = pd.DataFrame({"id": text["id"], **numbers, **{name: text[name].map(float) for name in classes}})
    except ValueError as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from error
    try:
        loss = log_loss(probabilities(oof), oof["label"].to_numpy())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if len(oof) != metrics["num_examples"] or abs(loss - metrics["log_loss"]) > 1e-5:
        raise UserError(
            f"{path} has {len(oof)} rows of log loss {loss:.5f}, metrics.json says "
            f"{metrics['num_examples']} rows of {metrics['log_loss']:.5f}; {AGAIN}"
        )
    return oof


def _read_curve(path: Path) -> pd.DataFrame | None:
    try:
        curve = pd.read_csv(path)
        columns = curve[["step", "train_loss", "dev_log_loss"]].astype(float)
    except (KeyError, ValueError) as error:  # pandas' parser errors are ValueErrors
        message = str(error).splitlines()[0]
        raise UserError(f"{path} is broken ({message}); delete it to do without the learning curve") from error
    return columns.sort_values("step", kind="stable") if len(columns) else None
