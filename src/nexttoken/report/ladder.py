"""The ladder: one row a step with what it gained, how sure that is, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from nexttoken.metrics.intervals import NUM_RESAMPLES
from nexttoken.report.ladder_steps import Gain, Step, steps_of
from nexttoken.report.markdown import NOTHING, difference_cell, interval_cell, loss_cell, markdown, plain
from nexttoken.report.tables import reference_key, reference_names
from nexttoken.runs.calibration_fit import groups_of
from nexttoken.runs.scored_runs import Data, Run
from nexttoken.types import Metric

NOTES = (
    "Against: the row that a step is compared with, on the rows that both scored: the run that was asked in another way"
    " or calibrated, a blend's best member, the run to begin from, for any other training the earlier one with the"
    " fewest other settings. Gain: how much better, whichever direction the metric has. Interval: 95 %, percentiles of"
    f" {NUM_RESAMPLES:,} resamples of groups of near-duplicate rows and of seeds. Noise: 0 is in the interval, or two"
    " seeds disagree. Against the class prior the interval is that of the step's own score, and the prior is taken as"
    " known. Seconds: of all folds together, the mean over seeds; of a blend those of its members."
)
COST = ("seconds", "tokens a row")  # columns that are left out where no run has them
HEADER = ("gain", "95 % interval", "verdict", "seeds", "rows", *COST)


@dataclass(frozen=True)
class LadderTable:
    """The cells of one data set's ladder: the references, then each step of the runs."""

    data: Data
    header: list[str]
    rows: list[list[str]]


def ladder_tables(runs: Sequence[Run]) -> list[LadderTable]:
    """A table for each data set."""
    by_data = groupby(sorted(runs, key=lambda run: run.data), key=lambda run: run.data)
    return [_table(data, steps_of(list(group))) for data, group in by_data]


def ladder_page(tables: Sequence[LadderTable], max_width: int) -> str:
    """Markdown with a section for each table, at most `max_width` characters wide, and notes."""
    heads = [f"## {plain(table.data.dataset)} ({plain(table.data.task)})" for table in tables]
    shown = [markdown(table.header, table.rows, max_width) for table in tables]
    return "\n\n".join([*(f"{head}\n\n{table}" for head, table in zip(heads, shown, strict=True)), NOTES])


def _table(data: Data, steps: Sequence[Step]) -> LadderTable:
    metric = steps[0].runs[0].metric
    levels = _references(data, max(steps, key=lambda step: len(step.ids)).runs[0], metric)
    rows, names = [], list(levels)
    for place, (name, level) in enumerate(levels.items()):
        gain = difference_cell(_better_by(level, levels[names[place - 1]], metric)) if place else ""
        rows.append([f"{place} {name}", str(place - 1) if place else "", loss_cell(level), gain, *[""] * 6])
    prior = names.index("class prior") if "class prior" in names else None
    for place, step in enumerate(steps):
        against = prior if step.base is None else step.base + len(levels)
        gains = Gain.of(step, steps[step.base]) if step.base is not None else _over_prior(step)
        name = f"{place + len(levels)} {step.name}"
        rows.append([name, NOTHING if against is None else str(against), *_cells(step, gains)])
    header = ["step", "against", metric.title, *HEADER]
    known = [column for column, name in enumerate(header) if name not in COST or any(row[column] for row in rows)]
    cells = [[row[column] for column in known] for row in rows]
    return LadderTable(data, [header[column] for column in known], cells)


def _references(data: Data, run: Run, metric: Metric) -> dict[str, float]:
    """The scores without a model of the run's rows, by name, but for the best possible one."""
    names = {key: name for key, name in reference_names(data).items() if key != "best_possible_log_loss"}
    levels = {name: run.weighted(reference_key(key, metric)) for key, name in names.items()}
    return {name: level for name, level in levels.items() if level is not None}


def _over_prior(step: Step) -> Gain | None:
    """The gain over the class prior, whose score is taken as known; None where it has none by the metric."""
    run = step.runs[0]
    level = run.weighted(reference_key("prior_log_loss", run.metric))
    is_one = len(set(groups_of(run))) < 2 or np.isnan(step.score)
    return None if level is None or is_one else Gain.over(level, step)


def _better_by(score: float, level: float, metric: Metric) -> float:
    return score - level if metric.higher_is_better else level - score


def _cells(step: Step, gain: Gain | None) -> list[str]:
    words = [NOTHING] * 3
    if gain is not None:
        words = [difference_cell(gain.value), interval_cell(gain.interval, "+"), gain.verdict]
    seconds, tokens = step.per_run("seconds"), step.per_run("num_prompt_tokens")
    cost = ["" if seconds is None else f"{seconds:,.0f}", "" if tokens is None else f"{tokens / len(step.ids):,.0f}"]
    return [loss_cell(step.score), *words, str(len(step.runs)), f"{len(step.ids):,}", *cost]
