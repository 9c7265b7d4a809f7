"""The way in which a finished run is asked: its own, or another one with its own file name and its own score."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.data.files import hash_text
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
from nexttoken.runs.calibration import Calibration, read_calibration
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.ledger import LEDGER, record
from nexttoken.runs.records import read_gate

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun

USUAL = {"ask": "nexttoken.inference.Once", "search": "nexttoken.inference.retrieval.search.Search"}
UNSCORED = ("generation.", "engine.")  # settings of generated texts, whose folds are scored by losses


@dataclass(frozen=True)
class Asking:
    """A loaded run and how it is asked, made before the prediction whose submission it saves."""

    run: "LoadedRun"
    settings: Mapping[str, Any]  # by which the way differs from the run's own, thresholds of gate.json included
    calibration: Calibration | None = None  # fitted on the out-of-fold rows of this way
    scores: Mapping[str, Any] = field(default_factory=dict)  # for the ledger: over the held-out rows of `scored`
    trainings: tuple[str, ...] = ()  # identities of the folds that answer

    @classmethod
    def of(cls, run: "LoadedRun") -> "Asking":
        """Raises UserError where a fold's scores or state, gate.json or calibration.json cannot be read."""
        gate, trainings = chosen_gate(run), tuple(fold.training for fold in run.answering)
        asked = {key: value for key, value in run.asked.items() if key.rpartition(".")[2] not in gate}
        asking = cls(run, asked | gate, trainings=trainings)
        found, scored = read_calibration(asking.folder, len(run.parts.task.classes)), asking.scored
        scores = run.known_scores or mean_scores([fold.metrics() for fold in scored])
        return replace(asking, calibration=found, scores=found.scores if found and scored else scores)

    @property
    def way(self) -> str:
        """Words for a way that is not the run's own; "" for that."""
        return words_of(self.settings)

    @property
    def has_gate(self) -> bool:
        """True where the thresholds of gate.json decide."""
        return "min_top1" in self.settings

    @property
    def folder(self) -> RunFolder:
        """The folder of the out-of-fold rows of this way: the run's own, or one inside it."""
        own = {key: value for key, value in self.settings.items() if key != "fold"}
        return self.run.folder.asked(_file_name(words_of(own), own)) if own else self.run.folder

    @property
    def scored(self) -> list[FoldFolder]:
        """The out-of-fold rows of this way for every fold that answers; none unless all of them are there."""
        if any(fold.is_final for fold in self.run.answering) or any(key.startswith(UNSCORED) for key in self.settings):
            return []
        folds = [self.folder.fold(fold.number) for fold in self.run.answering]
        return folds if all(fold.is_finished and not fold.is_outdated for fold in folds) else []

    @property
    def words(self) -> str:
        """Words for the way and for a calibration; "" for the run as it was scored."""
        return " ".join(filter(None, ["calibrated" if self.calibration else "", self.way]))

    @property
    def name(self) -> str:
        """The run's name, and in another way of asking the words and a hash of its settings: a file name."""
        name, scaling = self.run.path.resolve().name, self.calibration.scaling.values if self.calibration else {}
        return f"{name}_{_file_name(self.words, {**self.settings, **scaling})}" if self.words else name

    def save(self, predictions: Any, path: Path, remark: str = "", is_noted: bool = True) -> None:
        """Write the submission of these predictions as `publish` does."""
        self.publish(lambda file: self.run.parts.task.write(predictions, file), path, remark, is_noted)

    def publish(self, write: Callable[[Path], None], path: Path, remark: str = "", is_noted: bool = True) -> None:
        """Have `write` make the submission, and add its line to the ledger beside it.

        A `remark` says in the ledger that it was answered otherwise than it was scored. The line comes first, so that a
        kill leaves no file that the ledger does not know; a file that replaces its earlier state need not be noted.
        Raises UserError where a fold was trained again meanwhile.
        """
        folds = self.run.answering
        if self.trainings != tuple(fold.training for fold in folds if fold.is_finished):
            raise UserError(f"{self.run.path} was trained again meanwhile: predict again")
        asked, scores = " ".join(filter(None, [self.words, remark])), {} if remark else self.scores
        with scratch_folder(path) as folder:
            write(folder / path.name)
            numbers, ledger = [fold.number for fold in folds], path.with_name(LEDGER)
            if is_noted:
                record(folder / path.name, str(self.run.path), numbers, ledger=ledger, asked=asked, **scores)
            put_in_place(folder / path.name, path)


def mean_scores(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean log loss and score by the task's metric over held-out examples; `folds` are their metrics.json.

    Nothing without folds.
    """
    if not folds:
        return {}
    weights = [saved["num_examples"] for saved in folds]
    loss = float(np.average([saved["log_loss"] for saved in folds], weights=weights))
    metric = folds[0].get("metric")
    known = [saved[metric] for saved in folds if metric and saved.get(metric) is not None]
    if metric in (None, "log_loss") or len(known) < len(folds):
        return {"oof_log_loss": loss}
    return {"oof_log_loss": loss, "metric": metric, "oof_score": float(np.average(known, weights=weights))}


def chosen_gate(run: "LoadedRun") -> dict[str, Any]:
    """The thresholds of gate.json where the inference uses them and has others without it; else {}."""
    path, inference = run.path / "gate.json", run.parts.inference
    chosen = asdict(read_gate(path)) if path.exists() else {}
    states = [inference.state() | fold.state() for fold in run.folds] if chosen else []
    changes = (inference.restored(state | chosen) != inference.restored(state) for state in states)
    return chosen if any(changes) else {}


def words_of(settings: Mapping[str, Any]) -> str:
    """Words for the settings of a way, which begin with `gate` where these hold thresholds of gate.json."""
    gate = {field.name for field in fields(Gate)}
    others = {key: value for key, value in settings.items() if key not in gate}
    return " ".join(filter(None, ["gate" * (len(others) < len(settings)), describe(others)]))


def describe(asked: Mapping[str, Any]) -> str:
    """Words for a way of asking, `Demonstrations BM25 temperature-0.7`; the settings of a class are left out."""
    targets = [key for key in asked if key.endswith("_target_")]
    named = (str(asked[key]) for key in targets if asked[key] and not is_usual(key, asked[key]))
    classes = dict.fromkeys(name.rpartition(".")[2] for name in named)
    nodes = tuple(key.removesuffix("_target_") for key in targets)
    own = {key: value for key, value in asked.items() if not key.startswith(nodes) and value is not None}
    others = (f"{key.rpartition('.')[2]}-{'none' if value == {} else value}" for key, value in own.items())
    return " ".join([*classes, *others])


def is_usual(key: str, target: str) -> bool:
    """True for a class inside an inference that says nothing about the way: once in each pass, the only search."""
    return any(key.endswith(f".{node}._target_") and target == name for node, name in USUAL.items())


def _file_name(words: str, settings: Mapping[str, Any]) -> str:
    """The words and a hash of the settings."""
    shown, text = re.sub(r"[^\w.-]+", "-", words)[:60], json.dumps(settings, sort_keys=True, default=str)
    return f"{shown}_{hash_text(text)[:6]}"
