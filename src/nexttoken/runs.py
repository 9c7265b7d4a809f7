"""The run folder: everything a trained fold leaves behind, written whole and read back without re-describing anything.

output/<task>/<name>/folds.csv        id, group, fold: the same for every model on the same data
output/<task>/<name>/fold<k>/         config.yaml labels.json model/ oof.csv curve.csv metrics.json (written last)
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from nexttoken.errors import UserError
from nexttoken.files import read_json, to_yaml, whole_file, write_json
from nexttoken.types import LabelPredictions

# Keys that say where or how fast, not what: two runs that differ only here are the same run.
INCIDENTAL = ("overwrite", "output_dir", "save_prompts", "batch_tokens", "logger", "fold", "name")


@dataclass(frozen=True)
class FoldFolder:
    """One fold of a run on disk."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def model_dir(self) -> Path:
        return self.path / "model"

    @property
    def is_finished(self) -> bool:
        return (self.path / "metrics.json").exists()

    def claim(self, config: Mapping[str, Any], overwrite: bool) -> None:
        """Make the folder ours: new, or left by the same configuration (which is then resumed).

        Raises UserError, showing the differences, when another configuration already lives here.
        """
        if overwrite and self.path.exists():
            _remove(self.path)
        if self.config_path.exists():
            if differences := describe_differences(self.config(), config):
                raise UserError(
                    f"{self.path} holds a run with other settings ({differences});"
                    " choose another name=... or overwrite=true"
                )
            return
        with whole_file(self.config_path) as part:
            part.write_text(to_yaml(config), encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """The resolved configuration that made this fold."""
        try:
            config = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(
                f"{self.config_path} cannot be read ({type(error).__name__}); is {self.path} a run folder?"
            ) from None
        if not isinstance(config, dict):
            raise UserError(
                f"{self.config_path} does not hold a configuration; train this fold again with overwrite=true"
            )
        return config

    def metrics(self) -> dict[str, Any]:
        return read_json(self.path / "metrics.json")

    def save_oof(self, predictions: LabelPredictions, labels: np.ndarray, fold: int, classes: Sequence[str]) -> None:
        """Write oof.csv: id, fold, label, then one column per class in full precision."""
        frame = pd.DataFrame({"id": predictions.ids, "fold": fold, "label": labels})
        frame[list(classes)] = predictions.probs
        with whole_file(self.path / "oof.csv") as part:
            frame.to_csv(part, index=False)

    def save_prompts(self, prompts: Sequence[Any], labels: Any) -> None:
        """Write prompts.jsonl: what the model really read for each held-out row, and the ids that spell each label."""
        label_ids = dict(zip(labels.labels, labels.continuations, strict=True))
        with whole_file(self.path / "prompts.jsonl") as part, part.open("w", encoding="utf-8") as lines:
            for p in prompts:
                row = {"id": p.id, "text": p.text, "token_ids": p.token_ids.tolist(), "label_token_ids": label_ids}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """The last file of a fold: its presence says that the fold is finished."""
        write_json(dict(metrics), self.path / "metrics.json")


@dataclass(frozen=True)
class RunFolder:
    """A run: the folds of one configuration."""

    path: Path

    def fold(self, number: int) -> FoldFolder:
        return FoldFolder(self.path / f"fold{number}")

    def finished_folds(self) -> list[FoldFolder]:
        """Finished folds in order. Raises UserError when there are none."""
        found = [FoldFolder(path) for path in sorted(self.path.glob("fold[0-9]*"), key=lambda p: int(p.name[4:]))]
        if finished := [fold for fold in found if fold.is_finished]:
            return finished
        raise UserError(f"{self.path} has no finished fold; train one first: python train.py fold=0")


def latest_run(output_dir: Path) -> RunFolder:
    """The run whose fold finished last. Raises UserError when nothing was trained yet."""
    finished = sorted(output_dir.glob("*/*/fold*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{output_dir} has no finished run; train one first: python train.py fold=0")
    return RunFolder(finished[-1].parent.parent)


def default_name(input_dir: str, overrides: Sequence[str]) -> str:
    """`arena-mini_stories260k`: the data's folder and what the command line changed, so that runs do not collide.

    An experiment's file name stands for itself; a group choice or a path shows its last part, other keys `key=value`.
    """
    words = [o.partition("=")[2] for o in overrides if o.startswith("experiment=")] or [Path(input_dir).resolve().name]
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in (*INCIDENTAL, "input_dir", "experiment", "debug") or key.split(".")[0] in ("hydra", "logger"):
            continue
        is_choice = "." not in key and not value.replace(".", "").isdigit()
        last = value.rstrip("/").rpartition("/")[2]
        words.append(last if is_choice or "/" in value else f"{key.rpartition('.')[2]}={last}")
    words += [f"debug-{o.partition('=')[2]}" for o in overrides if o.startswith("debug=")]
    return re.sub(r"[^\w=.+-]+", "-", "_".join(words))


def describe_differences(saved: Mapping[str, Any], asked: Mapping[str, Any], limit: int = 5) -> str:
    """`fit.learning_rate: 0.001 -> 0.002, ...`: how a saved configuration differs from the one asked for."""
    old, new = (_flatten({k: v for k, v in config.items() if k not in INCIDENTAL}) for config in (saved, asked))
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    ]
    return ", ".join(changed[:limit]) + (f" and {len(changed) - limit} more" if len(changed) > limit else "")


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {path: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flatten(child, f"{path}.{name}".lstrip(".")).items()
    }


def _remove(folder: Path) -> None:
    import shutil

    (folder / "metrics.json").unlink(missing_ok=True)  # first: a kill in between must not leave a finished-looking fold
    shutil.rmtree(folder)
