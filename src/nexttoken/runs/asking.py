"""The way in which a finished run is asked: its own, or another one with its own file name and no foreign score."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.data.files import hash_text
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError
from nexttoken.runs.ledger import LEDGER, record
from nexttoken.runs.records import read_gate

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun


@dataclass(frozen=True)
class Asking:
    """A loaded run and how it is asked, made before the prediction whose submission it saves."""

    run: "LoadedRun"
    way: str  # words for a calibration and for a way that the run was not scored by; "" for its own
    scores: Mapping[str, Any]  # for the ledger, over the held-out examples of the folds that answer; {} in another way
    trainings: tuple[str, ...]  # identities of these folds

    @classmethod
    def of(cls, run: "LoadedRun") -> "Asking":
        """Raises UserError where a fold's scores or gate.json cannot be read."""
        has_gate, saved = has_chosen_gate(run), [fold.metrics() for fold in run.answering]
        is_own = not has_gate and not run.asked.keys() - {"fold"} and not any(fold.is_final for fold in run.answering)
        found = run.calibration
        words = ["gate" if has_gate else "", "calibrated" if found else "", describe(run.asked)]
        scores = {} if not is_own else found.scores if found else mean_scores(saved)
        return cls(run, " ".join(filter(None, words)), scores, tuple(fold.training for fold in run.answering))

    @property
    def name(self) -> str:
        """The run's name, and in another way of asking the words and a hash of its settings: a file name."""
        found = self.run.calibration
        asked = {**self.run.asked, **(found.scaling.values if found else {})}
        name, settings = self.run.path.resolve().name, json.dumps(asked, sort_keys=True, default=str)
        words = re.sub(r"[^\w.-]+", "-", self.way)[:60]
        return f"{name}_{words}_{hash_text(settings)[:6]}" if words else name

    def save(self, predictions: Any, path: Path) -> None:
        """Write the submission and its line in the ledger beside it.

        The line comes first, so that a kill leaves no file that the ledger does not know. Raises UserError where a
        fold was trained again meanwhile.
        """
        folds = self.run.answering
        if self.trainings != tuple(fold.training for fold in folds if fold.is_finished):
            raise UserError(f"{self.run.path} was trained again meanwhile: predict again")
        with scratch_folder(path) as folder:
            self.run.parts.task.write(predictions, folder / path.name)
            numbers, ledger = [fold.number for fold in folds], path.with_name(LEDGER)
            record(folder / path.name, str(self.run.path), numbers, ledger=ledger, asked=self.way, **self.scores)
            put_in_place(folder / path.name, path)


def mean_scores(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean log loss and score by the task's metric over held-out examples; `folds` are their metrics.json."""
    weights = [saved["num_examples"] for saved in folds]
    loss = float(np.average([saved["log_loss"] for saved in folds], weights=weights))
    metric = folds[0].get("metric")
    known = [saved[metric] for saved in folds if metric and saved.get(metric) is not None]
    if metric in (None, "log_loss") or len(known) < len(folds):
        return {"oof_log_loss": loss}
    return {"oof_log_loss": loss, "metric": metric, "oof_score": float(np.average(known, weights=weights))}


def has_chosen_gate(run: "LoadedRun") -> bool:
    """True where gate.json has other thresholds than those that the folds were scored with."""
    path, inference = run.path / "gate.json", run.parts.inference
    chosen = asdict(read_gate(path)) if path.exists() else {}
    states = [fold.state() for fold in run.folds] if chosen else []
    return any(inference.restored(state | chosen) != inference.restored(state) for state in states)


def describe(asked: Mapping[str, Any]) -> str:
    """Words for a way of asking, `Demonstrations BM25 temperature-0.7`; the settings of a class are left out."""
    targets = [key for key in asked if key.endswith("_target_")]
    classes = dict.fromkeys(str(asked[key]).rpartition(".")[2] for key in targets)
    nodes = tuple(key.removesuffix("_target_") for key in targets)
    own = [key for key in asked if not key.startswith(nodes)]
    return " ".join([*classes, *(f"{key.rpartition('.')[2]}-{asked[key]}" for key in own)])
