"""Tables of questions with options: accuracy and MAP@3 beside chance, log loss beside what it has to beat."""

from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.metrics.probabilities import map_at_3
from nexttoken.report.markdown import NOTHING, loss_cell, markdown
from nexttoken.runs.read import Data, Run, data_of, probabilities
from nexttoken.runs.read_answers import environment

OTHER_KEYS = {"uniform_log_loss": "chance"}  # baseline_log_loss, baseline_accuracy; but chance_accuracy


def quiz_fold_table(metrics: Mapping[str, Any]) -> str:
    """One fold's scores beside its references; `metrics` is what metrics.json holds."""
    rows = []
    for key, name in data_of(metrics).references.items():
        if metrics.get(key) is not None:
            prefix = OTHER_KEYS.get(key, key.removesuffix("_log_loss"))
            scores = [metrics.get(f"{prefix}_{score}") for score in ("accuracy", "map_at_3")]
            rows.append([name, loss_cell(metrics[key]), *map(_optional_cell, scores)])
    label = f"this fold ({'trained' if metrics['trained'] else 'zero-shot'})"
    own = [loss_cell(metrics["log_loss"]), *(_optional_cell(metrics.get(key)) for key in ("accuracy", "map_at_3"))]
    rows.append([f"**{cell}**" if cell else "" for cell in (label, *own)])
    head = f"{metrics['dataset']}, fold {metrics['fold']}: {metrics['num_examples']:,} questions"
    return f"{head}\n\n{markdown(['score of', 'log loss', 'accuracy', 'MAP@3'], rows)}"


def quiz_columns(data: Data, runs: Sequence[Run]) -> dict[str, list[str]]:
    """Columns of the run table, over all out-of-fold rows of each run."""
    oofs = [run.oof for run in runs]
    columns = {
        "Model": [run.title for run in runs],
        "Environment": [environment(run.folds) for run in runs],
        "accuracy": [loss_cell(run.weighted("accuracy")) for run in runs],
        "chance": [loss_cell(run.weighted("chance_accuracy")) for run in runs],
        "MAP@3": [loss_cell(map_at_3(probabilities(oof), oof["label"].to_numpy())) for oof in oofs],
        "log loss": [loss_cell(float(oof["loss"].mean())) for oof in oofs],
    }
    levels = {name: [loss_cell(run.weighted(key)) for run in runs] for key, name in data.references.items()}
    return columns | {name: cells for name, cells in levels.items() if set(cells) != {NOTHING}}


def _optional_cell(value: float | None) -> str:
    return "" if value is None else loss_cell(value)
