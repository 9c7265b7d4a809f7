"""The tables of a run: a fold's scores beside their references, and all runs on every fold, best first."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isnan
from typing import Any

from nexttoken.metrics.intervals import Interval, paired_difference, score_interval
from nexttoken.metrics.probabilities import BRIER_SCORE, METRICS
from nexttoken.report.markdown import (
    NOTHING,
    difference_cell,
    digits_of_column,
    interval_cell,
    loss_cell,
    markdown,
    mean_cell,
    plain,
)
from nexttoken.report.published import predicted_leaderboard, published_table
from nexttoken.runs.answer_set import baseline_key
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.runs.ledger import Submission
from nexttoken.runs.read import group_names, read_groups
from nexttoken.runs.read_answers import environment
from nexttoken.runs.scored_runs import Data, Run, data_of, ranked
from nexttoken.types import Metric

OPEN_REFERENCES = {
    "uniform_nll_per_character": "equally probable characters",
    "baseline_nll_per_character": "n-grams of training answers",
}
SHORT = {"expected_calibration_error": "ECE", "brier_score": "Brier"}


def reference_names(data: Data) -> dict[str, str]:
    """The names of the references by their keys in metrics.json."""
    baselines = {baseline_key(place): name for place, name in enumerate(data.baselines)}
    names = {"uniform": "uniform guess", "prior": "class prior", **baselines, "best_possible": "best possible"}
    return {f"{prefix}_log_loss": name for prefix, name in names.items()}


def metrics_in_tables(metrics: Sequence[Metric]) -> list[Metric]:
    """The first metric, log loss, and the others with a chance level."""
    others = [metric for metric in metrics[1:] if metric.chance is not None and metric.name != LOG_LOSS.name]
    return [LOG_LOSS, *others] if metrics[0].name == LOG_LOSS.name else [metrics[0], LOG_LOSS, *others]


def reference_key(key: str, metric: Metric) -> str:
    """The key of a reference's score by another metric than log loss: `prior_auc` for `prior_log_loss`."""
    if metric.name == LOG_LOSS.name:
        return key
    return f"{'chance' if key == 'uniform_log_loss' else key.removesuffix('_log_loss')}_{metric.name}"


def reference_levels(run: Run, metric: Metric) -> dict[str, float]:
    """The scores of the references on the run's rows by a metric, by name; those that a fold lacks are left out."""
    levels = {name: run.weighted(reference_key(key, metric)) for key, name in reference_names(run.data).items()}
    return {name: level for name, level in levels.items() if level is not None}


def fold_table(saved: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """One fold's scores beside the references on the same rows; `saved` is metrics.json, `metrics` are the task's."""
    if saved.get("answers") == "texts":
        return _open_fold_table(saved)
    data, columns, rows = data_of(saved), metrics_in_tables(metrics), []
    own = saved[columns[0].name] if columns[0] is LOG_LOSS else saved.get(columns[0].name)
    for key, name in reference_names(data).items():
        if saved.get(key) is not None:
            levels = [saved.get(reference_key(key, metric)) for metric in columns]
            difference = "" if own is None or levels[0] is None else difference_cell(own - levels[0])
            rows.append([name, *(loss_cell(level, "") for level in levels), difference])
    label = f"this fold ({'trained' if saved['trained'] else 'zero-shot'})"
    cells = [label, *(loss_cell(saved.get(metric.name), NOTHING if metric is columns[0] else "") for metric in columns)]
    rows.append([*(f"**{cell}**" if cell else "" for cell in cells), ""])
    rows_name = "questions" if data.is_quiz else "rows"
    head = f"{plain(data.dataset)}, fold {saved['fold']}: {saved['num_examples']:,} {rows_name}"
    header = ["score of", *(metric.title for metric in columns), f"difference in {columns[0].title}"]
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
    runs = ranked(runs)
    metric = runs[0].metric
    scores = [run.by_fold(metric) for run in runs]
    numbers = sorted({number for of_run in scores for number in of_run})
    by_fold = {f"fold {number}": [loss_cell(of_run.get(number)) for of_run in scores] for number in numbers}
    known = [[score for score in of_run.values() if not isnan(score)] for of_run in scores]
    by_fold["mean ± std"] = [mean_cell(of_run) if of_run else NOTHING for of_run in known]
    if data.is_quiz:
        columns = _score_columns(data, runs) | by_fold
    else:
        columns = {"run": [run.title for run in runs]} | by_fold | _score_columns(data, runs)
    if len(runs) > 1:
        columns["vs. first run"] = ["", *(_paired(run, runs[0], metric) for run in runs[1:])]
    if data.is_published:
        columns["predicted public LB"] = [loss_cell(predicted_leaderboard(run.score(LOG_LOSS))) for run in runs]
    columns |= _leaderboard_columns(runs, submissions)
    table = markdown(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    return f"## {plain(data.dataset)} ({plain(data.task)})\n\n{table}\n\n{_notes(data, runs)}"


def _score_columns(data: Data, runs: list[Run]) -> dict[str, list[str]]:
    """The scores of all out-of-fold rows of a run, beside the references, or for pairs the distance from each."""
    columns: dict[str, list[str]] = {}
    metrics, prefix = metrics_in_tables(runs[0].scores), "" if data.is_quiz else "OOF "
    if data.is_quiz and metrics[0] is LOG_LOSS:
        metrics = [*metrics[1:], LOG_LOSS]  # quizzes are read by their accuracy
    for metric in metrics:
        scores = [run.score(metric) for run in runs]
        columns[f"{prefix}{metric.title}"] = [*map(loss_cell, scores)]
        if metric is runs[0].metric and metric is not LOG_LOSS:
            columns |= _with_intervals(f"{prefix}{metric.title}", metric, scores, runs)
        if data.is_quiz and metric is not LOG_LOSS:
            columns[f"chance {metric.title}"] = [loss_cell(run.weighted(f"chance_{metric.name}")) for run in runs]
    levels = {
        name: [run.weighted(key if data.is_quiz else reference_key(key, metrics[0])) for run in runs]
        for key, name in reference_names(data).items()
    }
    if not data.is_quiz:
        own = [run.score(metrics[0]) for run in runs]
        for name, of_runs in levels.items():
            away = [
                score - level
                for score, level in zip(own, of_runs, strict=True)
                if level is not None and not isnan(score)
            ]
            if len(away) == len(runs):
                columns[f"vs. {name}"] = [*map(difference_cell, away)]
        return columns
    columns |= {name: [*map(loss_cell, of_runs)] for name, of_runs in levels.items()}
    names = {"Model": [run.title for run in runs], "Environment": [environment(run.folds) for run in runs]}
    return names | {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}


def _notes(data: Data, runs: list[Run]) -> str:
    own, *others = metrics_in_tables(runs[0].scores)
    lines = [f"{_sentence(own)}, {_direction(own)} is better. OOF: all finished folds' rows pooled."]
    if data.is_quiz:
        lines = [f"All finished folds' questions pooled; then {own.title} by fold, {_direction(own)} is better."]
    lines += [f"{_sentence(other)}: {_direction(other)} is better." for other in others if other is not LOG_LOSS]
    if own is not LOG_LOSS:
        lines.append("Interval: groups of near-duplicate rows resampled.")
    lines.append("std: sample standard deviation over folds.")
    if len(runs) > 1:
        lines.append("vs. first run: mean difference on rows that both scored ± its standard error over rows.")
    if len({tuple(fold.number for fold in run.folds) for run in runs}) > 1:
        lines.append("The runs have different folds: compare them fold by fold or by the last difference, not by mean.")
    return " ".join(lines)


def _sentence(metric: Metric) -> str:
    """The metric's title as the beginning of a sentence."""
    return f"{metric.title[0].upper()}{metric.title[1:]}"


def _direction(metric: Metric) -> str:
    return "higher" if metric.higher_is_better else "lower"


def _with_intervals(title: str, metric: Metric, scores: list[float], runs: list[Run]) -> dict[str, list[str]]:
    """The columns of a score and its interval, with the decimals that the intervals support."""
    intervals = [_interval(run, metric) for run in runs]
    digits = digits_of_column(intervals)
    shown = [interval_cell(one, digits=digits) if one else NOTHING for one in intervals]
    return {title: [loss_cell(score, digits=digits) for score in scores], "95 % interval": shown}


def _interval(run: Run, metric: Metric) -> Interval | None:
    groups = group_names([*run.oof["id"]], read_groups(run.folder))
    return score_interval(metric, run.scored(metric), groups)


def _paired(run: Run, first: Run, metric: Metric) -> str:
    """Mean ± standard error of the difference in the metric over the rows that both runs scored."""
    both = run.oof[["id", "label"]].reset_index().merge(first.oof[["id", "label"]].reset_index(), on=["id", "label"])
    if len(both) < 2:
        return NOTHING
    places = [both[column].to_numpy() for column in ("index_x", "index_y")]
    found = paired_difference(metric, run.scored(metric).take(places[0]), first.scored(metric).take(places[1]))
    return f"{difference_cell(found[0])} ± {found[1]:.4f}" if found else NOTHING


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


def out_of_fold_table(runs: Mapping[str, Run]) -> str:
    """A row for each of the named runs, over all rows: the task's metric, log loss, accuracy, ECE and Brier score."""
    own = next(iter(runs.values())).metric
    metrics = {metric.name: metric for metric in (own, *METRICS, BRIER_SCORE)}
    header = ["probabilities", *(SHORT.get(name, metric.title) for name, metric in metrics.items())]
    rows = [[name, *(loss_cell(run.score(metric)) for metric in metrics.values())] for name, run in runs.items()]
    return markdown(header, rows)
