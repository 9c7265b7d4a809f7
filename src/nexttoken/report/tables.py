"""The tables of a run: a fold's scores beside their references, and all runs on every fold, best first."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import mean
from typing import Any

import pandas as pd

from nexttoken.report.markdown import NOTHING, difference_cell, loss_cell, markdown, mean_cell, plain
from nexttoken.report.published import predicted_leaderboard, published_table
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read import Data, Run, data_of, probabilities
from nexttoken.runs.read_answers import environment
from nexttoken.types import Metric

OPEN_REFERENCES = {
    "uniform_nll_per_character": "equally probable characters",
    "baseline_nll_per_character": "n-grams of training answers",
}


def reference_names(data: Data) -> dict[str, str]:
    """The names of the references by their keys in metrics.json."""
    baseline = "option baseline" if data.is_quiz else "length/overlap baseline"
    names = {"uniform": "uniform guess", "prior": "class prior", "baseline": baseline, "best_possible": "best possible"}
    return {f"{prefix}_log_loss": name for prefix, name in names.items()}


def metrics_in_tables(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics with a chance level, except log loss, which has columns of its own."""
    return [metric for metric in metrics if metric.chance is not None and metric.name != "log_loss"]


def fold_table(saved: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """One fold's scores beside the references on the same rows; `saved` is metrics.json, `metrics` are the task's."""
    if saved.get("answers") == "texts":
        return _open_fold_table(saved)
    data, loss, others = data_of(saved), saved["log_loss"], metrics_in_tables(metrics)
    rows = []
    for key, name in reference_names(data).items():
        if saved.get(key) is not None:
            prefix = "chance" if key == "uniform_log_loss" else key.removesuffix("_log_loss")
            cells = [loss_cell(saved.get(f"{prefix}_{metric.name}"), "") for metric in others]
            rows.append([name, loss_cell(saved[key]), *cells, difference_cell(loss - saved[key])])
    label = f"this fold ({'trained' if saved['trained'] else 'zero-shot'})"
    cells = [label, loss_cell(loss), *(loss_cell(saved.get(metric.name), "") for metric in others)]
    rows.append([*(f"**{cell}**" if cell else "" for cell in cells), ""])
    rows_name = "questions" if data.is_quiz else "rows"
    head = f"{plain(data.dataset)}, fold {saved['fold']}: {saved['num_examples']:,} {rows_name}"
    header = ["score of", "log loss", *(metric.title for metric in others), "difference in log loss"]
    return f"{head}\n\n{markdown(header, rows)}"


def _open_fold_table(saved: Mapping[str, Any]) -> str:
    """A fold of open answers. Only losses per character compare with those of other tokenizers."""
    loss, rows = saved["nll_per_character"], []
    for key, name in OPEN_REFERENCES.items():
        rows.append([name, "", "", loss_cell(saved[key]), difference_cell(loss - saved[key])])
    label = f"this fold ({'trained' if saved['trained'] else 'as it came'})"
    cells = [label, loss_cell(saved["log_loss"]), f"{saved['perplexity']:.2f}", loss_cell(loss)]
    rows.append([*(f"**{cell}**" for cell in cells), ""])
    head = f"{plain(saved['dataset'])}, fold {saved['fold']}: {saved['num_examples']:,} held-out answers"
    header = ["answers' loss in nats", "per token", "perplexity", "per character", "difference"]
    return f"{head} of {saved['num_answer_tokens']:,} tokens\n\n{markdown(header, rows)}"


def runs_table(runs: Sequence[Run], submissions: Sequence[Submission] = ()) -> str:
    """Runs × folds, a table per data set, best mean first, with the ledger's scores; then the published scores."""
    by_data = groupby(sorted(runs, key=lambda run: run.data), key=lambda run: run.data)
    sections = [_section(data, list(group), submissions) for data, group in by_data]
    if compared := [run for run in runs if run.data.has_published_scores]:
        sections.append(published_table(compared))
    return "\n\n".join(sections)


def _section(data: Data, runs: list[Run], submissions: Sequence[Submission]) -> str:
    runs = sorted(runs, key=lambda run: mean(run.losses.values()))
    oofs = [run.oof for run in runs]
    numbers = sorted({number for run in runs for number in run.losses})
    by_fold = {f"fold {number}": [loss_cell(run.losses.get(number)) for run in runs] for number in numbers}
    by_fold["mean ± std"] = [mean_cell(list(run.losses.values())) for run in runs]
    if data.is_quiz:
        columns = _score_columns(data, runs, oofs) | by_fold
    else:
        columns = {"run": [run.title for run in runs]} | by_fold | _score_columns(data, runs, oofs)
    if len(runs) > 1:
        columns["vs. first run"] = ["", *[_paired(oof, oofs[0]) for oof in oofs[1:]]]
    if data.is_published:
        columns["predicted public LB"] = [loss_cell(predicted_leaderboard(oof["loss"].mean())) for oof in oofs]
    columns |= _leaderboard_columns(runs, submissions)
    table = markdown(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    return f"## {plain(data.dataset)} ({plain(data.task)})\n\n{table}\n\n{_notes(data, runs)}"


def _score_columns(data: Data, runs: list[Run], oofs: list[pd.DataFrame]) -> dict[str, list[str]]:
    """The scores of all out-of-fold rows of a run, beside the references, or for pairs the distance from each."""
    losses = [float(oof["loss"].mean()) for oof in oofs]
    levels = {name: [run.weighted(key) for run in runs] for key, name in reference_names(data).items()}
    columns, prefix = {}, "" if data.is_quiz else "OOF "
    for metric in metrics_in_tables(runs[0].scores):
        scores = [metric.score(probabilities(oof), oof["label"].to_numpy()) for oof in oofs]
        columns[f"{prefix}{metric.title}"] = [*map(loss_cell, scores)]
        if data.is_quiz:
            columns[f"chance {metric.title}"] = [loss_cell(run.weighted(f"chance_{metric.name}")) for run in runs]
    if not data.is_quiz:
        columns = {"OOF log loss": [*map(loss_cell, losses)], **columns}
        for name, of_runs in levels.items():
            away = [loss - level for loss, level in zip(losses, of_runs, strict=True) if level is not None]
            if len(away) == len(runs):
                columns[f"vs. {name}"] = [*map(difference_cell, away)]
        return columns
    columns["log loss"] = [*map(loss_cell, losses)]
    columns |= {name: [*map(loss_cell, of_runs)] for name, of_runs in levels.items()}
    names = {"Model": [run.title for run in runs], "Environment": [environment(run.folds) for run in runs]}
    return names | {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}


def _notes(data: Data, runs: list[Run]) -> str:
    lines = ["Log loss, lower is better. OOF: all finished folds' rows pooled."]
    if data.is_quiz:
        lines = ["All finished folds' questions pooled; then log loss by fold, lower is better."]
    for metric in metrics_in_tables(runs[0].scores):
        direction = "higher" if metric.higher_is_better else "lower"
        lines.append(f"{metric.title[0].upper()}{metric.title[1:]}: {direction} is better.")
    lines.append("std: sample standard deviation over folds.")
    if len(runs) > 1:
        lines.append("vs. first run: mean difference on rows that both scored ± its standard error over rows.")
    if len({tuple(run.losses) for run in runs}) > 1:
        lines.append("The runs have different folds: compare them fold by fold or by the last difference, not by mean.")
    return " ".join(lines)


def _paired(oof: pd.DataFrame, first: pd.DataFrame) -> str:
    """Mean ± standard error of the difference in log loss over the rows that both runs scored."""
    both = oof.merge(first, on=["id", "label"], suffixes=("", "_first"))
    if len(both) < 2:
        return NOTHING
    difference = both["loss"] - both["loss_first"]
    return f"{difference_cell(difference.mean())} ± {difference.std(ddof=1) / len(both) ** 0.5:.4f}"


def _leaderboard_columns(runs: list[Run], submissions: Sequence[Submission]) -> dict[str, list[str]]:
    """Real leaderboard scores where the ledger has any: those of a run's latest submission with a score."""
    columns = {}
    for key in ("public_lb", "private_lb"):
        scored = [line for line in submissions if getattr(line, key) is not None]
        cells = [
            next((loss_cell(getattr(line, key)) for line in reversed(scored) if line.is_of(run.folder)), "")
            for run in runs
        ]
        if any(cells):
            columns[key.replace("_lb", " LB")] = cells
    return columns
