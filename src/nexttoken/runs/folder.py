"""The run folder: a folder for each fold, claimed before training, continued by the same run, finished by metrics.json.

output/<task>/<name>/folds.csv        id, group, fold: the same for every model on the same data
output/<task>/<name>/fold<k>/         config.yaml data.sha256 labels.json model/ budget.json curve.csv inference.json
                                      rows.csv oof.csv metrics.json (last)
output/<task>/<name>/all/             the same of a final model on all rows (fold=all), without oof.csv and rows.csv
output/<task>/<name>/                 gate.json calibration.json cascade.json: computed from all finished folds
output/<task>/<name>/asked/<way>/     folds.csv, and fold<k>/ without weights: the run's folds asked in another way
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.data.files import hash_text
from nexttoken.data.folds import Folds, save_folds
from nexttoken.data.whole_files import remove
from nexttoken.errors import UserError
from nexttoken.runs.lock import FoldLock
from nexttoken.runs.records import FoldRecords, fold_name
from nexttoken.settings import ALL, INCIDENTAL
from nexttoken.types import Example

if TYPE_CHECKING:
    from nexttoken.build import Parts

FOLD_NAME = re.compile("fold(0|[1-9][0-9]*)")  # as `fold` writes it: fold01 would be fold1 again
RETRIEVER_NODES = ("retriever", "search", "inference", "candidates", "train_transforms")  # may hold a retriever
RETRIEVER_FOLDERS = ("index_dir", "cache_dir")  # change no result
ASKED = "asked"  # the folder in a run of the ways in which it was asked again
INCIDENTAL_DEVICES = ("trainer.devices", "trainer.strategy", "trainer.accelerator")


@dataclass(frozen=True)
class FoldFolder(FoldRecords):
    """One fold of a run on disk."""

    @property
    def number(self) -> int | str:
        """The fold's number, or "all"."""
        return ALL if self.is_final else int(self.path.name.removeprefix("fold"))

    @property
    def answered_by(self) -> "FoldFolder":
        """The fold whose weights answered: itself, or the same fold of the run that was asked in another way."""
        base = RunFolder(self.path.parent).asked_of
        return base.fold(self.number) if base else self

    @property
    def is_outdated(self) -> bool:
        """True where the weights that answered were trained again, or are gone; `answered_by` in metrics.json."""
        fold = self.answered_by
        return fold != self and not (fold.is_finished and self.metrics().get("answered_by") == fold.training_id)

    @property
    def lock(self) -> FoldLock:
        return FoldLock(self.path)

    @property
    def is_finished(self) -> bool:
        return (self.path / "metrics.json").exists()

    @property
    def journals(self) -> Path:
        """The folder of the held-out answers so far, which a killed run goes on from."""
        return self.path / "answered"

    def check(self, config: Mapping[str, Any], data_hash: str) -> None:
        """Raise UserError where the folder holds a run with other settings, or of other data."""
        if not self.config_path.exists():
            return
        advice = "choose another name=... or overwrite=true"
        if differences := describe_differences(self.config(), config):
            raise UserError(f"{self.path} holds a run with other settings ({differences}); {advice}")
        if not self.has_data(data_hash):
            raise UserError(f"{self.path} was started on other rows than {config['input_dir']} holds now; {advice}")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, then remove the journals. A kill in between leaves journals that nothing reads."""
        self.save_metrics(metrics)
        remove(self.journals)

    def remove(self) -> None:
        """Delete the fold; of a linked one all that it holds, so that the next fold is on the same disk.

        config.yaml goes last: a fold that is left by a kill in between is neither finished nor continued. Raises
        OSError where something cannot be removed.
        """
        first = [self.path / name for name in ("metrics.json", "data.sha256")]
        rest = sorted(self.path.glob("*"), key=lambda path: path == self.config_path)
        for path in (*first, *rest):
            remove(path)
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()

    def remove_parts(self) -> None:
        """Delete what killed processes left half-written, as large as a checkpoint; only the fold's owner may."""
        for folder in (self.path, self.path / "checkpoints", self.journals):
            for part in folder.glob(".*.part"):
                remove(part)


@dataclass(frozen=True)
class RunFolder:
    """A run: the folds of one configuration."""

    path: Path

    @classmethod
    def of(cls, parts: "Parts") -> "RunFolder":
        """The folder of a training's run: output_dir/<task>/<name>."""
        return cls(Path(parts.settings.output_dir) / parts.task.name / str(parts.settings.name))

    def fold(self, number: int | str) -> FoldFolder:
        """The folder of a fold by its number, or of the final model: "all"."""
        return FoldFolder(self.path / fold_name(number))

    @property
    def asked_of(self) -> "RunFolder | None":
        """The run that answered, where this folder holds its answers in another way; None for a run with weights."""
        path = self.path.absolute()
        return RunFolder(self.path.parent.parent) if path.parent.name == ASKED else None

    def asked(self, way: str) -> "RunFolder":
        """The folder of this run's answers in another way."""
        return RunFolder(self.path / ASKED / way)

    @property
    def ways(self) -> "list[RunFolder]":
        """The ways in which this run was asked again and that have a finished fold, by name."""
        ways = (RunFolder(path) for path in sorted(self.path.glob(f"{ASKED}/*")))
        return [way for way in ways if any(fold.is_finished for fold in way._folds())]

    @property
    def has_only_final(self) -> bool:
        """True where the final model is finished and no fold is."""
        return self.fold(ALL).is_finished and not any(fold.is_finished for fold in self._folds())

    def final(self) -> FoldFolder:
        """The finished final model. Raises UserError where there is none."""
        if (final := self.fold(ALL)).is_finished:
            return final
        raise UserError(f"{self.path} has no final model on all rows; train one first: python train.py fold=all")

    def finished_folds(self) -> list[FoldFolder]:
        """Finished folds in order, without the final model. Raises UserError where there are none."""
        if finished := [fold for fold in self._folds() if fold.is_finished]:
            return finished
        if FOLD_NAME.fullmatch(self.path.name):
            raise UserError(f"{self.path} is one fold; expected the folder of its run, {self.path.parent}")
        raise UserError(f"{self.path} has no finished fold; train one first: python train.py fold=0")

    def claim(
        self, number: int | str, config: Mapping[str, Any], data_hash: str, folds: Folds, overwrite: bool
    ) -> FoldFolder:
        """Make a fold's folder ready for training: new, continued where the same run began it, or overwritten.

        Raises UserError for other settings, other data or other folds, before anything is deleted.
        """
        fold, table = self.fold(number), self.path / "folds.csv"
        if not overwrite:
            fold.check(config, data_hash)
        elif not [other for other in self._folds() if other != fold]:
            fold.remove()
            table.unlink(missing_ok=True)
        save_folds(folds, table)  # raises where other folds are saved
        if number != ALL:
            for name in ("gate.json", "calibration.json", "cascade.json"):  # out of date once another fold is trained
                (self.path / name).unlink(missing_ok=True)
            for way in self.path.glob(f"{ASKED}/*"):
                RunFolder(way).fold(number).remove()  # and the scaling of all its folds
                (way / "calibration.json").unlink(missing_ok=True)
        if overwrite:
            fold.remove()
        fold.remove_parts()
        fold.claim(config, data_hash)
        return fold

    def _folds(self) -> list[FoldFolder]:
        numbers = (FOLD_NAME.fullmatch(path.name) for path in self.path.glob("fold*"))
        return [self.fold(number) for number in sorted(int(match[1]) for match in numbers if match)]


def latest_run(output_dir: Path) -> RunFolder:
    """The run whose fold or final model finished last. Raises UserError where nothing was trained yet."""
    metrics = [path for path in output_dir.glob("*/*/fold*/metrics.json") if FOLD_NAME.fullmatch(path.parent.name)]
    metrics += output_dir.glob(f"*/*/{ALL}/metrics.json")
    if not metrics:
        raise UserError(f"{output_dir} has no finished run; train one first: python train.py fold=0")
    return RunFolder(max(metrics, key=lambda path: path.stat().st_mtime).parent.parent)


def hash_examples(examples: Sequence[Example]) -> str:
    """SHA-256 over every example's id, fields, answer and `learns`: a run goes on with the data it began with."""
    rows = [
        (e.id, list(e.fields.items()), e.label if e.answer is None else e.answer, *([e.learns] if e.learns else []))
        for e in examples
    ]
    return hash_text(json.dumps(rows))


def hash_learnt(examples: Sequence[Example], solved: Sequence[Example]) -> str:
    """The hash of the training file's rows, and after a space that of solved examples from elsewhere, if any."""
    return " ".join(hash_examples(rows) for rows in (examples, solved) if rows)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ and may change results, old and new value by dotted key."""
    old, new = (flatten({k: v for k, v in config.items() if k not in INCIDENTAL}) for config in (saved, given))
    changed = {}
    for key in sorted({*old, *new}):
        path = key.split(".")
        is_incidental = key in INCIDENTAL_DEVICES or (path[0] in RETRIEVER_NODES and path[-1] in RETRIEVER_FOLDERS)
        if old.get(key) != new.get(key) and not is_incidental:
            changed[key] = (old.get(key), new.get(key))
    return changed


def describe_differences(saved: Mapping[str, Any], given: Mapping[str, Any], limit: int = 5) -> str:
    """`fit.learning_rate: 0.001 -> 0.002, ...`: the settings that may change results; empty where none differs."""
    changed = [f"{key}: {_shorten(old)} -> {_shorten(new)}" for key, (old, new) in differences(saved, given).items()]
    return ", ".join(changed[:limit]) + (f" and {len(changed) - limit} more" if len(changed) > limit else "")


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Every setting by its dotted key; a node without settings is one itself."""
    if not isinstance(node, Mapping) or not node:
        return {path: node}
    parts = (flatten(child, f"{path}.{name}".lstrip(".")) for name, child in node.items())
    return {key: value for part in parts for key, value in part.items()}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
