"""Variants of one setting, compared on the same rows, folds and seeds; an unfair comparison is refused.

How the intervals are made, and how far they can be trusted: `nexttoken.metrics.intervals`.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError, nearest
from nexttoken.metrics.intervals import NUM_RESAMPLES
from nexttoken.report.grid import COMPARED, Grid, read_cells
from nexttoken.report.markdown import difference_cell, interval_cell, loss_cell, markdown, mean_cell
from nexttoken.report.ranking import Measure, Ranking
from nexttoken.types import Metric


def compare(
    paths: Sequence[Path], by: str, baseline: str | None = None, metrics: Sequence[Metric] = tuple(COMPARED.values())
) -> str:
    """Markdown: for each data set and metric a table, a sentence per difference, and the values of each seed.

    Raises UserError where runs differ in more than `by`, in their rows, or where a variant lacks a seed or a fold.
    """
    cells = sorted(read_cells(paths, by), key=lambda cell: cell.fold.data)
    grids = [Grid.of(list(group), by) for _, group in groupby(cells, key=lambda cell: cell.fold.data)]
    return "\n\n".join(_data_section(grid, baseline, metrics) for grid in grids)


def _data_section(grid: Grid, baseline: str | None, metrics: Sequence[Metric]) -> str:
    scored = grid.scored
    first = scored.variants.index(_choose(scored.variants, baseline, grid.by))
    parts = [
        f"## {grid.data.dataset} ({grid.data.task}) by {grid.by}",
        f"{scored.num_rows:,} rows in {len(np.unique(scored.groups)):,} groups, folds {_listed(grid.folds)}, "
        f"seeds {_listed(scored.seeds)}: {grid.num_cells} trained folds that differ in `{grid.by}` alone.",
    ]
    for metric in metrics:
        measure = Measure(metric.name, metric.title, metric.name, metric.higher_is_better)
        parts += _metric_section(Ranking(scored, measure), first, grid.by)
    notes = (
        "Mean over seeds of the score of all out-of-fold rows, ± its sample standard deviation over seeds. Intervals: "
        f"percentiles of {NUM_RESAMPLES:,} resamples of groups of rows and of seeds, the same for all variants; each "
        "holds for its own difference, none is corrected for how many there are. "
    )
    few = "With few seeds, intervals are too narrow where the spread over seeds makes up much of their width."
    one = "One seed: what another seed would change is in no interval."
    return "\n\n".join([*parts, notes + (one if len(scored.seeds) == 1 else few)])


def _choose(variants: Sequence[str], wanted: str | None, by: str) -> str:
    """The baseline: the first variant, the one of that name, or the only one whose name holds `wanted`."""
    if wanted is None or wanted in variants:
        return wanted or variants[0]
    part = wanted.removeprefix(f"{by}.").lower()
    matches = [variant for variant in variants if part in variant.lower()]
    if len(matches) != 1:
        reason = f"is a part of {', '.join(matches)}" if matches else f"is no variant; {nearest(wanted, variants)}"
        raise UserError(f"baseline={wanted} {reason}")
    return matches[0]


def _metric_section(ranking: Ranking, first: int, by: str) -> list[str]:
    name, variants, by_seed, seeds = ranking.measure.title, ranking.variants, ranking.by_seed, ranking.scored.seeds
    rows, sentences = [], []
    values = [[variant, *map(loss_cell, of_seed)] for variant, of_seed in zip(variants, by_seed, strict=True)]
    for place, variant in enumerate(variants):
        row = [variant, str(len(seeds)), mean_cell(by_seed[place]), interval_cell(ranking.interval(place))]
        if place == first:
            rows.append([*row, "", "", ""])
            continue
        differences, p = by_seed[place] - by_seed[first], ranking.p(place, first)
        interval = interval_cell(ranking.difference(place, first), "+")
        rows.append([*row, mean_cell(differences, "+"), interval, "< 0.001" if p < 0.001 else f"{p:.3f}"])
        sentences.append(f"- {_sentence(ranking, place, first)}")
        values.append([f"{variant} − {variants[first]}", *map(difference_cell, differences)])
    header = [by, "seeds", name, "95 % interval", f"− {variants[first]}", "95 % interval of the difference", "p"]
    return [markdown(header, rows), "\n".join(sentences), markdown([f"{name} per seed", *map(str, seeds)], values)]


def _sentence(ranking: Ranking, place: int, first: int) -> str:
    """`B is 0.0123 worse than A in log loss (95 % interval 0.0010 to 0.0236)`, or that nothing is to be seen."""
    variant, against, name = ranking.variants[place], ranking.variants[first], ranking.measure.title
    interval = ranking.difference(place, first)
    if 0 in interval:
        return f"{variant} and {against}: no difference to be seen in {name} ({interval_cell(interval, '+')})"
    difference = float((ranking.by_seed[place] - ranking.by_seed[first]).mean())
    verdict = "better" if (difference > 0) == ranking.measure.higher_is_better else "worse"
    ends = interval_cell(interval if difference > 0 else -interval)
    return f"{variant} is {abs(difference):.4f} {verdict} than {against} in {name} (95 % interval {ends})"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
