"""Variants of one setting, compared on the same rows, folds and seeds.

Anything that would make the comparison unfair is refused.
How the intervals are made, and how far they can be trusted: `nexttoken.metrics.intervals`.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError, nearest
from nexttoken.metrics.intervals import NUM_RESAMPLES, percentile_interval, resampled_means, two_sided_p
from nexttoken.metrics.probabilities import METRICS, mean_and_spread
from nexttoken.report.cells import read_cells
from nexttoken.report.grid import ROW_SCORES, Grid
from nexttoken.report.markdown import NOTHING, difference_cell, loss_cell, markdown, mean_cell
from nexttoken.types import Metric

COMPARED = {metric.name: metric for metric in METRICS if metric.name in ROW_SCORES}


def compare(
    paths: Sequence[Path], by: str, baseline: str | None = None, metrics: Sequence[Metric] = tuple(COMPARED.values())
) -> str:
    """Markdown: for each data set and metric a table, a sentence per difference, and the values of each seed.

    Raises UserError where runs differ in more than `by`, in their rows, or where a variant lacks a seed or a fold.
    """
    cells = read_cells(paths, by)
    by_data = groupby(sorted(cells, key=lambda cell: cell.data), key=lambda cell: cell.data)
    grids = [Grid.of(list(group), by) for _, group in by_data]
    return "\n\n".join(_data_section(grid, baseline, metrics) for grid in grids)


def _data_section(grid: Grid, baseline: str | None, metrics: Sequence[Metric]) -> str:
    first = grid.variants.index(_choose(grid, baseline))
    parts = [f"## {grid.data.dataset} ({grid.data.task}) by {grid.by}", _description(grid)]
    for metric in metrics:
        parts += _metric_section(grid, first, metric)
    return "\n\n".join([*parts, _notes(grid)])


def _choose(grid: Grid, wanted: str | None) -> str:
    """The baseline: the first variant, the one of that name, or the only one whose name holds `wanted`."""
    if wanted is None or wanted in grid.variants:
        return wanted or grid.variants[0]
    part = wanted.removeprefix(f"{grid.by}.").lower()
    found = [variant for variant in grid.variants if part in variant.lower()]
    if len(found) != 1:
        reason = f"is a part of {', '.join(found)}" if found else f"is no variant; {nearest(wanted, grid.variants)}"
        raise UserError(f"baseline={wanted} {reason}")
    return found[0]


def _metric_section(grid: Grid, first: int, metric: Metric) -> list[str]:
    values = grid.scores(metric.name)  # (variants, seeds, rows)
    draws = resampled_means(values, grid.groups)
    by_seed = values.mean(axis=2)
    against = grid.variants[first]
    rows, sentences = [], []
    for place, variant in enumerate(grid.variants):
        row = [variant, str(len(grid.seeds)), mean_cell(by_seed[place]), _interval_cell(draws[:, place])]
        if place == first:
            rows.append([*row, "", "", ""])
            continue
        difference = by_seed[place] - by_seed[first]
        # Sums of equal scores may differ in the last digit, by the machine; -0.0 would be shown with its sign.
        drawn = (draws[:, place] - draws[:, first]).round(12) + 0.0
        rows.append([*row, _spread_cell(difference), _interval_cell(drawn, sign="+"), _p_cell(two_sided_p(drawn))])
        sentences.append(_sentence(variant, against, float(difference.mean()), drawn, metric))
    name = metric.name.replace("_", " ")
    header = [grid.by, "seeds", name, "95 % interval", f"− {against}", "95 % interval of the difference", "p"]
    seeds = markdown([f"{name} per seed", *map(str, grid.seeds)], _seed_rows(grid, first, by_seed))
    return [markdown(header, rows), "\n".join(f"- {sentence}" for sentence in sentences), seeds]


def _sentence(variant: str, against: str, difference: float, drawn: np.ndarray, metric: Metric) -> str:
    """`B is 0.0123 worse than A in log loss (95 % interval 0.0010 to 0.0236)`, or that nothing is to be seen."""
    name, interval = metric.name.replace("_", " "), percentile_interval(drawn)
    if 0 in interval:
        return f"{variant} and {against}: no difference to be seen in {name} ({_interval_cell(drawn, sign='+')})"
    verdict = "better" if (difference > 0) == metric.higher_is_better else "worse"
    ends = _interval_cell(drawn if difference > 0 else -drawn)
    return f"{variant} is {abs(difference):.4f} {verdict} than {against} in {name} (95 % interval {ends})"


def _seed_rows(grid: Grid, first: int, by_seed: np.ndarray) -> list[list[str]]:
    rows = [[variant, *map(loss_cell, losses)] for variant, losses in zip(grid.variants, by_seed, strict=True)]
    for place, variant in enumerate(grid.variants):
        if place != first:
            differences = by_seed[place] - by_seed[first]
            rows.append([f"{variant} − {grid.variants[first]}", *map(difference_cell, differences)])
    return rows


def _interval_cell(draws: np.ndarray, sign: str = "") -> str:
    interval = percentile_interval(draws)
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def _spread_cell(differences: np.ndarray) -> str:
    mean, spread = mean_and_spread(differences.tolist())
    return f"{difference_cell(mean)} ± {spread:.4f}" if len(differences) > 1 else f"{difference_cell(mean)} ± {NOTHING}"


def _p_cell(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _description(grid: Grid) -> str:
    folds = ", ".join(map(str, grid.folds))
    return (
        f"{len(grid.groups):,} rows in {len(np.unique(grid.groups)):,} groups, folds {folds}, "
        f"seeds {', '.join(map(str, grid.seeds))}: {grid.num_runs} trained folds that differ in `{grid.by}` alone."
    )


def _notes(grid: Grid) -> str:
    notes = (
        "Mean over seeds of the score of all out-of-fold rows, ± its sample standard deviation over seeds. Intervals: "
        f"percentiles of {NUM_RESAMPLES:,} resamples of groups of rows and of seeds, the same for all variants; each "
        "holds for its own difference, none is corrected for how many there are."
    )
    if len(grid.seeds) == 1:
        return notes + " One seed: what another seed would change is in no interval."
    return notes + " With few seeds, intervals are too narrow where the spread over seeds makes up much of their width."
