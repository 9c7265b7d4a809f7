"""The picture of a comparison of variants: how far each is from the chosen one by every measure, and how surely."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.report.figures import Lettering, new_figure, save_figure
from nexttoken.report.ranking import Comparison, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def variants_plot(comparison: Comparison, path: Path) -> list[str]:
    """Write a PNG with a panel per measure, the deciding one first and its best variant on top.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    rankings = list(comparison.rankings.values())
    names = [rankings[0].variants[place] for place in rankings[0].order]
    lettering = Lettering.for_names(names)
    with lettering.font():
        figure = new_figure(3.2 + 3.0 * len(rankings), 1.6 + 0.42 * len(names))
        panels = figure.subplots(1, len(rankings), sharey=True, squeeze=False)[0]
        for axes, ranking in zip(panels, rankings, strict=True):
            _panel(axes, ranking, names)
        panels[0].set_yticks(range(len(names)), [lettering.show(name) for name in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        panels[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
        save_figure(figure, path)
    return lettering.key


def _panel(axes: "Axes", ranking: Ranking, names: list[str]) -> None:
    """Differences to the first of `names`, which are paired by row: values' own intervals would hide them."""
    order = [ranking.variants.index(name) for name in names]
    chosen, heights = order[0], np.arange(len(names))
    intervals = [ranking.difference(place, chosen) for place in order]
    values = ranking.values[order] - ranking.values[chosen]
    error = np.abs(np.array([(interval.low, interval.high) for interval in intervals]).T - values)
    axes.errorbar(values, heights, xerr=error, fmt="o", color="C0", capsize=3, elinewidth=1, label="95 % interval")
    for number, seed in enumerate(ranking.scored.seeds if len(ranking.scored.seeds) > 1 else ()):
        by_seed = ranking.by_seed[order, number] - ranking.by_seed[chosen, number]
        axes.plot(
            by_seed, heights, linestyle="", marker="|", color=f"C{number + 1}", markersize=12, label=f"seed {seed}"
        )
    axes.axvline(0, color="0.6", linewidth=0.8, linestyle="--")
    better = "higher" if ranking.measure.higher_is_better else "lower"
    axes.set(xlabel=f"{ranking.measure.title}, difference\nto the chosen one; {better} is better")
    axes.grid(axis="x", linewidth=0.4)
