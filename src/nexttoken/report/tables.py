"""The table of runs: each one's score on every fold and on all folds together, beside what it has to beat."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

import pandas as pd

from nexttoken.report.fold import metrics_in_tables, reference_names
from nexttoken.report.markdown import NOTHING, difference_cell, loss_cell, markdown, mean_cell
from nexttoken.report.published import predicted_leaderboard, published_table
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read import Data, Run, probabilities
from nexttoken.runs.read_answers import environment
from nexttoken.types import Metric


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
        columns = _quiz_columns(data, runs, oofs) | by_fold
    else:
        columns = {"run": [run.title for run in runs]} | by_fold | _pooled_columns(data, runs, oofs)
    if len(runs) > 1:
        columns["− first run"] = ["", *[_paired(oof, oofs[0]) for oof in oofs[1:]]]
    if data.is_published:
        columns["predicted public LB"] = [loss_cell(predicted_leaderboard(oof["loss"].mean())) for oof in oofs]
    columns |= _leaderboard_columns(runs, submissions)
    table = markdown(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    return f"## {data.dataset} ({data.task})\n\n{table}\n\n{_notes(data, runs)}"


def _quiz_columns(data: Data, runs: list[Run], oofs: list[pd.DataFrame]) -> dict[str, list[str]]:
    """Each metric beside its chance level, and log loss beside its references, over all out-of-fold rows of a run."""
    columns = {}
    for metric in metrics_in_tables(runs[0].scores):
        columns[metric.title] = _scores(metric, oofs)
        columns[f"chance {metric.title}"] = [loss_cell(run.weighted(f"chance_{metric.name}")) for run in runs]
    columns["log loss"] = [loss_cell(float(oof["loss"].mean())) for oof in oofs]
    for key, name in reference_names(data).items():
        columns[name] = [loss_cell(run.weighted(key)) for run in runs]
    names = {"Model": [run.title for run in runs], "Environment": [environment(run.folds) for run in runs]}
    return names | {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}


def _pooled_columns(data: Data, runs: list[Run], oofs: list[pd.DataFrame]) -> dict[str, list[str]]:
    """The scores of all out-of-fold rows of a run, and their distance from each reference."""
    losses = [float(oof["loss"].mean()) for oof in oofs]
    columns = {"OOF log loss": [loss_cell(loss) for loss in losses]}
    columns |= {f"OOF {metric.title}": _scores(metric, oofs) for metric in metrics_in_tables(runs[0].scores)}
    for key, name in reference_names(data).items():
        levels = [level for run in runs if (level := run.weighted(key)) is not None]
        if len(levels) == len(runs):
            columns[f"− {name}"] = [difference_cell(loss - level) for loss, level in zip(losses, levels, strict=True)]
    return columns


def _scores(metric: Metric, oofs: list[pd.DataFrame]) -> list[str]:
    return [loss_cell(metric.score(probabilities(oof), oof["label"].to_numpy())) for oof in oofs]


def _notes(data: Data, runs: list[Run]) -> str:
    notes = "Log loss, lower is better. OOF: all finished folds' rows pooled."
    if data.is_quiz:
        notes = "All finished folds' questions pooled; then log loss by fold, lower is better."
    lines = [notes]
    for metric in metrics_in_tables(runs[0].scores):
        direction = "higher" if metric.higher_is_better else "lower"
        lines.append(f"{metric.title[0].upper()}{metric.title[1:]}: {direction} is better.")
    lines.append("std: sample standard deviation over folds.")
    if len(runs) > 1:
        lines.append("− first run: mean difference on the rows both scored ± its standard error over rows, not seeds.")
    if len({tuple(run.losses) for run in runs}) > 1:
        note = "The runs do not have the same folds: compare them fold by fold or by the last difference, not by mean."
        lines.append(note)
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
        # `output/lmsys/x` and `/home/me/nexttoken/output/lmsys/x` are one run.
        scores = {Path(line.run).parts[-2:]: loss_cell(getattr(line, key)) for line in scored}
        cells = [scores.get(run.folder.resolve().parts[-2:], "") for run in runs]
        if any(cells):
            columns[key.replace("_lb", " LB")] = cells
    return columns
