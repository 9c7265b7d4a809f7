"""Runs of real rows with made-up answers: all files that train.py writes of a fold, but its weights."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.build import Parts, prepare
from nexttoken.commands.entry import compose
from nexttoken.data.folds import Folds
from nexttoken.runs.answer_set import answers_of
from nexttoken.runs.fold_rows import choose_rows, labels_of, split
from nexttoken.runs.folder import RunFolder, hash_examples
from nexttoken.transforms import apply_transforms
from nexttoken.types import AnswerLosses, Example, LabelPredictions, TextPredictions

MEASURED = {  # by training and prediction
    "num_parameters": 208384,
    "num_truncated": 0,
    "train_seconds": 60.0,
    "seconds": 75.0,
    "rows_per_second": 100.0,
    "peak_memory_mb": 600.0,
}


@cache
def _config(*overrides: str) -> tuple[Parts, dict[str, Any]]:
    return prepare(compose("train", [*overrides, "name=x", "fold=0"]), overrides)


@cache
def _read(*task: str) -> tuple[Parts, list[Example], Folds]:
    parts, _ = _config(*task)
    examples = apply_transforms(parts.task.read("train"), parts.transforms)
    return parts, examples, split(parts, examples)


@cache
def _held_out(number: int, *task: str) -> tuple[list[Example], dict[str, Any]]:
    """A fold's held-out rows, and what metrics.json says of them and of simple predictors."""
    parts, examples, folds = _read(*task)
    parts = replace(parts, settings=parts.settings.model_copy(update={"fold": number}))
    rows, answers = choose_rows(parts, examples, folds), answers_of(parts.task)
    described = answers.describe(parts.settings, parts.task, len(examples), len(rows.held_out))
    return rows.held_out, described | answers.references(parts.task, rows.train, rows.held_out)


def write_sample_run(
    run: Path, *task: str, skill: float = 1.0, seed: int = 0, num_folds: int = 5, changes: tuple[str, ...] = ()
) -> Path:
    """A run of the rows of a task, with other settings by `changes`; `skill` moves probability to the label."""
    parts, examples, folds = _read(*task)
    random, answers = np.random.default_rng(seed), answers_of(parts.task)
    for number in range(num_folds):
        rows, facts = _held_out(number, *task)
        config = _config(*task, *changes)[1] | {"name": run.name, "fold": number, "seed": seed}
        fold = RunFolder(run).claim(number, config, hash_examples(examples), folds, overwrite=False)
        predictions = _guesses(rows, parts.task.classes, skill, random)
        answers.save(fold, number, parts.task, predictions, rows)  # type: ignore[arg-type]
        scores = answers.score(parts.task, predictions, rows)  # type: ignore[arg-type]
        if not parts.task.classes:
            fold.save_texts(_written(rows, skill, random))
        _curve(skill).to_csv(fold.path / "curve.csv", index=False)
        fold.save_metrics(facts | scores | MEASURED | {"num_prompt_tokens": 90 * len(rows)})
    return run


def _guesses(rows: list[Example], classes: Sequence[str], skill: float, random: np.random.Generator) -> Any:
    """Probabilities of the classes, or the losses of open answers, where there are none."""
    ids = tuple(example.id for example in rows)
    if not classes:
        sizes = np.array([len(example.answer or "") + 1 for example in rows])
        return AnswerLosses(ids, sizes * random.gamma(4, 1 / (4 * skill), len(ids)), sizes, sizes)
    labels, size = labels_of(rows), (len(rows), len(classes))
    logits = random.normal(size=size) + skill * np.eye(len(classes))[labels] * random.normal(1.5, 1.0, (len(ids), 1))
    missing = np.arange(len(classes)) >= np.array([one.num_options or len(classes) for one in rows])[:, None]
    odds = np.where(missing, 0.0, np.exp(logits))
    return LabelPredictions(ids, odds / odds.sum(axis=1, keepdims=True), {"seconds": np.full(len(ids), 0.01)})


def _written(rows: list[Example], skill: float, random: np.random.Generator) -> TextPredictions:
    """The wanted answer of a row, or that of another one."""
    others = [rows[place].answer or "" for place in random.permutation(len(rows))]
    knows = random.random(len(rows)) < skill / 2
    texts = tuple(one.answer or "" if known else other for one, other, known in zip(rows, others, knows, strict=True))
    columns = {"num_tokens": np.full(len(rows), 5), "finished": np.full(len(rows), True)}
    return TextPredictions(tuple(example.id for example in rows), texts, columns)


def _curve(skill: float) -> pd.DataFrame:
    steps = np.arange(10, 210, 10)
    loss = 1.1 - 0.25 * skill * (1 - np.exp(-steps / 60))
    dev = np.where(steps % 50 == 0, loss + 0.05, np.nan)
    return pd.DataFrame({"step": steps, "epoch": steps / 100, "train_loss": loss, "dev_log_loss": dev, "refit": 0})


def write_bank_table(folder: Path, num_rows: int = 616) -> list[str]:
    """A table of short texts with 77 labels; returns the overrides that name it."""
    folder.mkdir(parents=True)
    classes = _config("task=banking77", "input_dir=unread")[1]["task"]["classes"]
    rows = [(f"m{row}", f"Question {row}: {classes[row % 77].replace('_', ' ')}?") for row in range(num_rows)]
    table = pd.DataFrame(rows, columns=["row_id", "text"]).assign(category=[classes[r % 77] for r in range(num_rows)])
    table.to_csv(folder / "train.csv", index=False)
    table.drop(columns="category").to_csv(folder / "test.csv", index=False)
    return ["task=banking77", f"input_dir={folder}"]
