"""A run asked in another way beside the run as trained: scores on the same held-out rows, the gain, and the cost."""

from collections.abc import Mapping

import numpy as np

from nexttoken.report.markdown import NOTHING, difference_cell, interval_cell, loss_cell, markdown
from nexttoken.report.ranking import Ranking, Scored
from nexttoken.report.tables import metrics_in_tables
from nexttoken.report.whole_scores import columns_for, ranking_by
from nexttoken.runs.read import group_names, read_groups
from nexttoken.runs.read_answers import out_of_fold
from nexttoken.runs.scored_runs import Run
from nexttoken.types import Metric

TRAINED = "as trained"


def asked_table(own: Run, asked: Run, way: str) -> str:
    """Markdown: a row per metric with the gain, above 0 where the way is better, its interval, and a verdict.

    Then tokens and milliseconds a row. For the run's own way (`way` is "") its scores alone.
    """
    runs = {TRAINED: own} | ({way: asked} if way else {})
    metrics = metrics_in_tables(own.scores)
    rankings = [ranking_by(metric, _scored(runs, metric)) for metric in metrics] if way else []
    rows = [
        [metric.title, *(loss_cell(run.score(metric)) for run in runs.values()), *gain]
        for metric, gain in zip(metrics, map(_gain, rankings) if way else [[]] * len(metrics), strict=True)
    ]
    empty = [""] * 3 if way else []
    rows.append(["tokens a row", *(_cell(run.tokens_a_row) for run in runs.values()), *empty])
    rows.append(["milliseconds a row", *(_cell(milliseconds_a_row(run)) for run in runs.values()), *empty])
    header = [f"{len(own.oof):,} held-out rows", *runs, *(["gain", "95 % interval", "verdict"] if way else [])]
    table, folds = markdown(header, rows), ", ".join(str(fold.number) for fold in asked.folds)
    if not way:
        return f"{table}\n\nFolds {folds}. This is the run's own way: its training asked these rows."
    notes = f"Folds {folds}. Interval: groups of near-duplicate rows resampled, the same for both; one training."
    return f"{table}\n\n{notes}\nanswers and scores: {asked.folder}"


def _scored(runs: Mapping[str, Run], metric: Metric) -> Scored:
    """The rows of both ways, with the columns that the metric takes."""
    tables = {}
    for name, run in runs.items():
        oof = run.oof
        groups = group_names([*oof["id"]], read_groups(run.folder))
        columns = columns_for(metric, run.scored(metric))
        tables[name, 0] = oof[["id", "label"]].assign(group=groups, **columns)
    return Scored.of(tables, tuple(columns), same="label")


def _gain(ranking: Ranking) -> list[str]:
    """The gain of the second variant over the first one, its interval, and `better`, `worse` or `noise`."""
    if np.isnan(ranking.by_seed).any():
        return [NOTHING] * 3
    is_higher, interval = ranking.measure.higher_is_better, ranking.difference(1, 0)
    gain = float(ranking.values[1] - ranking.values[0]) * (1 if is_higher else -1)
    verdict = "noise" if ranking.is_noise(1, 0) else "better" if gain > 0 else "worse"
    return [difference_cell(gain), interval_cell(interval if is_higher else -interval, "+"), verdict]


def milliseconds_a_row(run: Run) -> float | None:
    """Mean time of a row's answer, without loading and tokenising; None where a fold has no rows.csv."""
    answers = out_of_fold(run)
    return None if answers is None else 1000 * float(answers.rows["seconds"].mean())


def _cell(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.1f}"
