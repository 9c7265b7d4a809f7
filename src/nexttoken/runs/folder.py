"""The run folder: everything a trained fold leaves behind, written whole and read back without re-describing anything.

output/<task>/<name>/folds.csv        id, group, fold: the same for every model on the same data
output/<task>/<name>/fold<k>/         config.yaml data.sha256 labels.json model/ budget.json curve.csv inference.json
                                      rows.csv oof.csv metrics.json (last)
output/<task>/<name>/                 gate.json, result.json, environment.json: said by the finished folds together
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nexttoken.data.files import hash_text, read_json, to_yaml, whole_file, write_json
from nexttoken.data.folds import Folds, save_folds
from nexttoken.errors import UserError
from nexttoken.runs.saved_search import SEARCHING
from nexttoken.settings import INCIDENTAL
from nexttoken.types import AnswerLosses, Example, LabelPredictions, TextPredictions

FOLD_NAME = re.compile(r"fold(\d+)")

INCIDENTAL_PLACES = ("index_dir", "cache_dir")  # of a retriever, wherever it stands
STALE = ("gate.json", "result.json", "environment.json")  # what the finished folds said, once another one is trained
INCIDENTAL_DEVICES = ("trainer.devices", "trainer.strategy", "trainer.accelerator")


@dataclass(frozen=True)
class FoldFolder:
    """One fold of a run on disk."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def is_finished(self) -> bool:
        return (self.path / "metrics.json").exists()

    def check(self, config: Mapping[str, Any], data_hash: str) -> None:
        """Raise UserError when another configuration, or the same one on other rows, already lives here."""
        if not self.config_path.exists():
            return
        advice = "choose another name=... or overwrite=true"
        if differences := describe_differences(self.config(), config):
            raise UserError(f"{self.path} holds a run with other settings ({differences}); {advice}")
        if not self.holds(data_hash):
            raise UserError(f"{self.path} was started on other rows than {config['input_dir']} holds now; {advice}")

    def holds(self, data_hash: str) -> bool:
        """Was this fold made of the rows that hash so (`hash_examples`)?"""
        return self._hash_path.exists() and self._hash_path.read_text(encoding="utf-8") == data_hash

    def claim(self, config: Mapping[str, Any], data_hash: str) -> None:
        """Write down what is trained here and on what; checkpoints of the same run stay, to be continued from."""
        for path, text in ((self._hash_path, data_hash), (self.config_path, to_yaml(config))):
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")

    def remove(self) -> None:
        """Delete the fold, its finishing mark first: a kill in between leaves nothing that looks finished."""
        (self.path / "metrics.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _hash_path(self) -> Path:
        return self.path / "data.sha256"

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
        """What metrics.json says. Raises UserError when it lacks the scores."""
        metrics = read_json(self.path / "metrics.json")
        if not {"log_loss", "num_examples"} <= metrics.keys():
            raise UserError(f"{self.path / 'metrics.json'} has no log_loss; train this fold again with overwrite=true")
        return metrics

    def save_oof(self, predictions: LabelPredictions, labels: np.ndarray, fold: int, classes: Sequence[str]) -> None:
        """Write oof.csv: id, fold, label, then one column per class in full precision."""
        probs = dict(zip(classes, predictions.probs.T, strict=True))
        _save_table({"id": predictions.ids, "fold": fold, "label": labels} | probs, self.path / "oof.csv")

    def save_rows(self, examples: Sequence[Example], predictions: LabelPredictions) -> None:
        """Write rows.csv: id, the tags (genre, file), number of options, and what else is known of each row."""
        names = dict.fromkeys(name for example in examples for name in example.tags)
        tags = {name: [example.tags.get(name, "") for example in examples] for name in names}
        sizes = [example.num_options or predictions.probs.shape[1] for example in examples]
        columns = {"id": predictions.ids, **tags, "num_options": sizes, **predictions.columns}
        _save_table(columns, self.path / "rows.csv")

    def row_ids(self) -> list[str]:
        """The rows that the fold was scored on, those of its oof.csv, each once, in order."""
        import pandas as pd

        table = pd.read_csv(self.path / "oof.csv", dtype={"id": str, "row": str}, na_filter=False)
        return list(dict.fromkeys(table["row"] if "row" in table else table["id"]))

    @property
    def mark(self) -> str:
        """Another one for every training of the fold."""
        return hash_text((self.path / "metrics.json").read_text(encoding="utf-8"))[:16]

    def save_losses(self, losses: AnswerLosses, examples: Sequence[Example], fold: int) -> None:
        """Write oof.csv of open answers: id, the row of folds.csv that it is of, fold, nll, tokens, characters."""
        own = {example.id for example in examples}
        rows = [row if row in own else row.rpartition("#")[0] for row in losses.ids]  # a window of a dialogue
        columns = {"id": losses.ids, "row": rows, "fold": fold, "nll": losses.nll}
        counts = {"num_tokens": losses.num_tokens, "num_characters": losses.num_characters}
        _save_table(columns | counts, self.path / "oof.csv")

    def save_texts(self, texts: TextPredictions) -> None:
        """Write generated.jsonl: the answers that the model wrote to held-out rows."""
        numbers = (texts.columns["num_tokens"].tolist(), texts.columns["finished"].tolist())
        with whole_file(self.path / "generated.jsonl") as part, part.open("w", encoding="utf-8") as lines:
            for row, text, num_tokens, finished in zip(texts.ids, texts.texts, *numbers, strict=True):
                line = {"id": row, "output": text, "num_tokens": num_tokens, "finished": finished}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")

    def save_counts(self, counts: Mapping[str, Any]) -> None:
        """Write transforms.json: how many rows went into each transform and came out, and what else it counted."""
        if counts:
            write_json(dict(counts), self.path / "transforms.json")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write inference.json: what the way of asking learnt of this fold's training rows."""
        if state:
            write_json(dict(state), self.path / "inference.json")

    def state(self) -> dict[str, Any]:
        path = self.path / "inference.json"
        return read_json(path) if path.exists() else {}

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
        found = self._folds()
        if finished := [fold for fold in found if fold.is_finished]:
            return finished
        raise UserError(f"{self.path} has no finished fold; train one first: python train.py fold=0")

    def claim(
        self, number: int, config: Mapping[str, Any], data_hash: str, folds: Folds, overwrite: bool
    ) -> FoldFolder:
        """Make a fold ours: new, left by the same run (which is then continued), or overwritten.

        Raises UserError, with everything still in place, for other settings, other rows, or folds that differ.
        """
        fold, table = self.fold(number), self.path / "folds.csv"
        if not overwrite:
            fold.check(config, data_hash)
        elif not [other for other in self._folds() if other != fold]:
            fold.remove()
            table.unlink(missing_ok=True)
        save_folds(folds, table)  # may refuse
        for name in STALE:
            (self.path / name).unlink(missing_ok=True)
        if overwrite:
            fold.remove()
        fold.claim(config, data_hash)
        return fold

    def _folds(self) -> list[FoldFolder]:
        numbers = (FOLD_NAME.fullmatch(path.name) for path in self.path.glob("fold*"))
        return [self.fold(number) for number in sorted(int(match[1]) for match in numbers if match)]


def latest_run(output_dir: Path) -> RunFolder:
    """The run whose fold finished last. Raises UserError when nothing was trained yet."""
    marks = [path for path in output_dir.glob("*/*/fold*/metrics.json") if FOLD_NAME.fullmatch(path.parent.name)]
    finished = sorted(marks, key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{output_dir} has no finished run; train one first: python train.py fold=0")
    return RunFolder(finished[-1].parent.parent)


def _save_table(columns: Mapping[str, Any], path: Path) -> None:
    """Write `columns` of equal length, or of one value for all rows, as CSV with numbers in full precision."""
    import pandas as pd

    with whole_file(path) as part:
        pd.DataFrame(columns).to_csv(part, index=False)


def hash_examples(examples: Sequence[Example]) -> str:
    """SHA-256 over every row's id, fields and answer: a run is continued on the rows it was started on."""
    return hash_text(
        json.dumps([(e.id, list(e.fields.items()), e.label if e.answer is None else e.answer) for e in examples])
    )


def describe_differences(saved: Mapping[str, Any], asked: Mapping[str, Any], limit: int = 5) -> str:
    """`fit.learning_rate: 0.001 -> 0.002, ...`: how a saved configuration differs from the one asked for."""
    old, new = (_flatten({k: v for k, v in config.items() if k not in INCIDENTAL}) for config in (saved, asked))
    differ = [key for key in sorted({*old, *new}) if not _is_place(key) and old.get(key) != new.get(key)]
    changed = [f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in differ]
    return ", ".join(changed[:limit]) + (f" and {len(changed) - limit} more" if len(changed) > limit else "")


def _is_place(key: str) -> bool:
    path = key.split(".")
    return key in INCIDENTAL_DEVICES or (path[0] in SEARCHING and path[-1] in INCIDENTAL_PLACES)


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {path: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flatten(child, f"{path}.{name}".lstrip(".")).items()
    }


def _short(value: Any) -> str:
    """A value on one line, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
