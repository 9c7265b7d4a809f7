"""The calibration of a finished run, fitted on its out-of-fold rows: calibration.json, which predict.py applies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.files import read_json, write_json
from nexttoken.data.targets import load_class, make
from nexttoken.errors import UserError
from nexttoken.metrics.scaling import Scaling
from nexttoken.runs import seals
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.types import Swap

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """A change of probabilities. `scaling` was fitted on all out-of-fold rows and is for new ones.

    `by_fold` holds for each fold a scaling that was fitted on the other folds: with these the run's own rows are
    scored. `trainings` identifies the folds, `scores` are for the ledger.
    """

    scaling: Scaling
    by_fold: Mapping[int, Scaling]
    trainings: Mapping[int, str]
    scores: Mapping[str, Any]

    def threshold(self, before: float) -> float:
        """The threshold on the second of two classes at which the same rows are decided for it as before."""
        if len(self.scaling.offsets) != 2:
            return before
        return float(self.scaling(np.array([[1 - before, before]]))[0, 1])


def swap_of(fold: FoldFolder) -> tuple[int, ...] | None:
    """The partners of a pair's classes where the run treats both answers alike, asked or trained in both orders."""
    config = fold.config()
    asked, trained = config.get("inference") or {}, config.get("train_transforms") or {}
    nodes = [(asked, "inference"), (asked.get("ask") or {}, "ask")]
    nodes += [(node, "train_transforms") for node in trained.values()]
    kinds = [load_class(node["_target_"], place) for node, place in nodes if "_target_" in node]
    if not config.get("treats_sides_alike") and not any("pairs" in getattr(kind, "needs", ()) for kind in kinds):
        return None
    return Swap.of(make(config["task"], "task")).classes


def save_calibration(calibration: Calibration, details: Mapping[str, Any], folder: Path) -> Path:
    """Write calibration.json with a seal, and `details` on how it was chosen; return its path."""
    values = {
        **calibration.scaling.values,
        "by_fold": {str(number): scaling.values for number, scaling in calibration.by_fold.items()},
        "trainings": {str(number): one for number, one in calibration.trainings.items()},
        "scores": dict(calibration.scores),
        **details,
    }
    write_json({**values, seals.KEY: seals.hash_values(values)}, path := folder / FILE)
    return path


def read_calibration(folder: RunFolder, num_classes: int) -> Calibration | None:
    """Read calibration.json; None where there is no such file.

    Raises UserError for one that is broken, was changed, or was fitted before a fold was trained again.
    """
    if not (path := folder.path / FILE).exists():
        return None
    saved, fix = read_json(path), f"fit it again: python -m nexttoken calibrate run={folder.path}"
    if saved.get(seals.KEY) != seals.hash_values(saved):
        raise UserError(f"{path} was changed after the calibration was fitted; {fix}, or delete it")
    try:
        by_fold = {int(number): Scaling.of(values, num_classes) for number, values in saved["by_fold"].items()}
        trainings = {int(number): str(one) for number, one in saved["trainings"].items()}
        found = Calibration(Scaling.of(saved, num_classes), by_fold, trainings, dict(saved["scores"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no calibration of {num_classes} classes ({error!r}); {fix}") from None
    for number, training_id in found.trainings.items():
        if (fold := folder.fold(number)).is_finished and fold.training_id != training_id:
            raise UserError(f"{path} was fitted before {fold.path} was trained again; {fix}")
    return found
