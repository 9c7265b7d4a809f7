"""Markdown tables that put a score beside what it has to beat, saying which scores may be compared."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from nexttoken.report.markdown import NOTHING, difference_cell, loss_cell, markdown, mean_cell
from nexttoken.report.open_table import open_fold_table
from nexttoken.report.published import KINDS, PUBLISHED, predicted_leaderboard
from nexttoken.report.quizzes import quiz_columns, quiz_fold_table
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read import Data, Run, data_of


def fold_table(metrics: Mapping[str, Any]) -> str:
    """One fold's score beside its references and the published scores; `metrics` is what metrics.json holds."""
    if metrics.get("answers") == "texts":
        return open_fold_table(metrics)
    data, fold = data_of(metrics), metrics["log_loss"]
    if data.is_quiz:
        return quiz_fold_table(metrics)
    kinds = [*KINDS, "comparable"] if data.has_published_scores else []
    blank = [""] * len(kinds)
    yes = [*blank[:-1], "yes"] if kinds else []
    levels = {name: metrics[key] for key, name in data.references.items() if metrics.get(key) is not None}
    rows = [[name, loss_cell(level), *yes, difference_cell(fold - level)] for name, level in levels.items()]
    label = f"this fold ({'trained' if metrics['trained'] else 'zero-shot'})"
    rows.append([f"**{label}**", f"**{loss_cell(fold)}**", *blank, ""])
    if data.is_published:
        predicted = ["", "", loss_cell(predicted_leaderboard(fold)), "", "predicted"]
        rows.append(["this fold, on James Day's CV-to-LB line", "", *predicted, ""])
    if data.has_published_scores:
        rows += _published_rows(fold if data.is_published else None)
    head = f"{data.dataset}, fold {metrics['fold']}: {metrics['num_examples']:,} rows"
    head += f", accuracy {metrics['accuracy']:.3f}"
    table = markdown(["log loss of", "this data", *kinds, "this fold − it"], rows)
    return "\n\n".join([head, table, *([_comparability([data])] if data.has_published_scores else [])])


def runs_table(runs: Sequence[Run], submissions: Sequence[Submission] = ()) -> str:
    """Runs × folds, a table per data set, best mean first, with the ledger's scores; then the published scores."""
    by_data = groupby(sorted(runs, key=lambda run: run.data), key=lambda run: run.data)
    sections = [_section(data, list(group), submissions) for data, group in by_data]
    runs = [run for run in runs if run.data.has_published_scores]
    if not runs:
        return "\n\n".join(sections)
    header = ["published log loss", *KINDS, "comparable"]
    published = any(run.data.is_published for run in runs)
    rows = [[row[0], *row[2:-1]] for row in _published_rows(0.0 if published else None)]
    datas = sorted({run.data for run in runs})
    return "\n\n".join([*sections, "## Published scores", _comparability(datas), markdown(header, rows)])


def _section(data: Data, runs: list[Run], submissions: Sequence[Submission]) -> str:
    runs = sorted(runs, key=lambda run: mean(run.losses.values()))
    if data.is_quiz:
        columns = quiz_columns(data, runs) | _fold_columns(runs)
    else:
        columns = {"run": [run.title for run in runs]} | _fold_columns(runs) | _pooled_columns(data, runs)
    if len(runs) > 1:
        columns["− first run"] = ["", *[_paired(run.oof, runs[0].oof) for run in runs[1:]]]
    if data.is_published:
        columns["predicted public LB"] = [loss_cell(predicted_leaderboard(run.oof["loss"].mean())) for run in runs]
    columns |= _leaderboard_columns(runs, submissions)
    table = markdown(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    return f"## {data.dataset} ({data.task})\n\n{table}\n\n{_notes(data, runs)}"


def _fold_columns(runs: list[Run]) -> dict[str, list[str]]:
    numbers = sorted({number for run in runs for number in run.losses})
    columns = {f"fold {number}": [loss_cell(run.losses.get(number)) for run in runs] for number in numbers}
    return {**columns, "mean ± std": [mean_cell(list(run.losses.values())) for run in runs]}


def _pooled_columns(data: Data, runs: list[Run]) -> dict[str, list[str]]:
    """What all out-of-fold rows of a run say together, and how far that is from each reference and the best run."""
    losses = [float(run.oof["loss"].mean()) for run in runs]
    columns = {
        "OOF log loss": [loss_cell(loss) for loss in losses],
        "OOF accuracy": [f"{run.weighted('accuracy'):.3f}" for run in runs],
    }
    for key, name in data.references.items():
        levels = [level for run in runs if (level := run.weighted(key)) is not None]
        if len(levels) == len(runs):
            columns[f"− {name}"] = [difference_cell(loss - level) for loss, level in zip(losses, levels, strict=True)]
    return columns


def _notes(data: Data, runs: list[Run]) -> str:
    notes = "Log loss, lower is better. OOF: all finished folds' rows pooled."
    if data.is_quiz:
        notes = "All finished folds' questions pooled; then log loss by fold, lower is better."
    notes += " std: sample standard deviation over folds."
    if len(runs) > 1:
        notes += (
            " − first run: mean difference on the rows both scored ± its standard error over rows (seeds not included)."
        )
    numbers = {tuple(run.losses) for run in runs}
    if len(numbers) > 1:
        notes += (
            " The runs do not have the same folds: compare them fold by fold or by the last difference, not by mean."
        )
    return notes


def _paired(oof: pd.DataFrame, first: pd.DataFrame) -> str:
    """Mean ± standard error of the difference in log loss over the rows that both runs scored."""
    both = oof.merge(first, on=["id", "label"], suffixes=("", "_first"))
    if len(both) < 2:
        return NOTHING
    difference = both["loss"] - both["loss_first"]
    return f"{difference_cell(difference.mean())} ± {difference.std(ddof=1) / len(both) ** 0.5:.4f}"


def _leaderboard_columns(runs: list[Run], submissions: Sequence[Submission]) -> dict[str, list[str]]:
    """The columns of real leaderboard scores, those that the ledger has: a run's latest submission with a score."""
    columns = {}
    for key in ("public_lb", "private_lb"):
        scored = [line for line in submissions if getattr(line, key) is not None]
        scores = {_task_and_name(line.run): loss_cell(getattr(line, key)) for line in scored}
        cells = [scores.get(_task_and_name(str(run.folder.resolve())), "") for run in runs]
        if any(cells):
            columns[key.replace("_lb", " LB")] = cells
    return columns


def _task_and_name(folder: str) -> tuple[str, ...]:
    """`output/lmsys/x` and `/home/me/nexttoken/output/lmsys/x` are one run."""
    return Path(folder).parts[-2:]


def _published_rows(fold: float | None) -> list[list[str]]:
    """Name, this data, one column per kind, comparable, difference; `fold` is None where nothing is comparable."""
    rows = []
    for published in PUBLISHED:
        kinds = [loss_cell(published.score) if kind == published.kind else "" for kind in KINDS]
        comparable = published.comparable and fold is not None
        difference = difference_cell(fold - published.score) if comparable and fold is not None else ""
        rows.append([f"{published.who}: {published.what}", "", *kinds, "yes" if comparable else "no", difference])
    return rows


def _comparability(datas: Sequence[Data]) -> str:
    names = ", ".join(data.dataset for data in datas if data.is_published)
    if not names:
        others = ", ".join(data.dataset for data in datas)
        return f"The published scores are on the competition's own rows: none is comparable with {others}."
    return (
        f"The published CV scores are comparable with {names} only (other folds, self-reported). "
        "Public and private leaderboard are two further test sets: compare neither with a CV nor with each other."
    )
