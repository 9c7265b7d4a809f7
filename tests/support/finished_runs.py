"""Run folders of finished folds, written by hand: no model is trained."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from nexttoken.data.files import to_yaml
from nexttoken.metrics.probabilities import accuracy, log_loss
from support.composed import composed

CLASSES = ("winner_model_a", "winner_model_b", "winner_tie")


@cache
def _defaults() -> dict:
    return composed()


def write_finished_fold(run: Path, fold: int = 0, num_rows: int = 12, **changed: object) -> Path:
    """A fold of the preference task with uniform probabilities, in the files that train.py writes."""
    folder = run / f"fold{fold}"
    folder.mkdir(parents=True)
    ids, labels = [f"{fold}-{row}" for row in range(num_rows)], np.arange(num_rows) % 3
    table = {"id": ids, "fold": fold, "label": labels, **dict.fromkeys(CLASSES, 1 / 3)}
    pd.DataFrame(table).to_csv(folder / "oof.csv", index=False)
    losses = dict.fromkeys(("log_loss", "uniform_log_loss", "prior_log_loss", "baseline_log_loss"), float(np.log(3)))
    data = {"fold": fold, "trained": True, "task": "lmsys", "dataset": "sample", "is_published_data": False}
    metrics = {**losses, "accuracy": 1 / 3, "num_examples": num_rows, **data}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(_defaults() | {"name": run.name, "fold": fold} | changed), "utf-8")
    (folder / "data.sha256").write_text("0" * 64, encoding="utf-8")
    lines = ["id,group,fold", *(f"{id},{row},{fold}" for row, id in enumerate(ids))]
    (run / "folds.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_run(run: Path, probs: np.ndarray, labels: np.ndarray, num_folds: int = 4, **changed: object) -> Path:
    """A run with these out-of-fold probabilities (N, 3), row i in fold i % num_folds; two rows in turn are a group."""
    ids, folds = np.array([f"row {row}" for row in range(len(labels))]), np.arange(len(labels)) % num_folds
    for fold in range(num_folds):
        own = folds == fold
        folder = write_finished_fold(run, fold, int(own.sum()), **changed)
        table = {"id": ids[own], "fold": fold, "label": labels[own], **dict(zip(CLASSES, probs[own].T, strict=True))}
        pd.DataFrame(table).to_csv(folder / "oof.csv", index=False)
        numbers = {"id": ids[own], "num_options": 3, "seconds": 0.5}
        pd.DataFrame(numbers).to_csv(folder / "rows.csv", index=False)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        metrics |= {"log_loss": log_loss(probs[own], labels[own]), "accuracy": accuracy(probs[own], labels[own])}
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    groups = np.arange(len(labels)) // (2 * num_folds) * num_folds + folds
    table = pd.DataFrame({"id": ids, "group": groups, "fold": folds})
    table.to_csv(run / "folds.csv", index=False)
    return run


def damage(path: Path, content: str | bytes | None) -> None:
    """Replace a file by other content, or by a folder (None)."""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def unseal(fold: Path) -> None:
    """Take the seal from metrics.json: the fold looks like one of an earlier version, and its files may be edited."""
    path = fold / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics.pop("sealed", None)
    path.write_text(json.dumps(metrics), encoding="utf-8")
