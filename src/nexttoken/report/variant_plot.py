"""The picture of a comparison of variants: each one's value by every measure, with its interval and its seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.report.lettering import Lettering
from nexttoken.report.plots import new_figure, save_figure
from nexttoken.report.ranking import Ranking
from nexttoken.report.variants import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def variants_plot(comparison: Comparison, path: Path) -> list[str]:
    """Write a PNG with a panel per measure, the deciding one first and its best variant on top.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    rankings = list(comparison.rankings.values())
    names = [rankings[0].scored.variants[place] for place in rankings[0].order]
    lettering = Lettering.for_names(names)
    with lettering.font():
        figure = new_figure(3.2 + 3.0 * len(rankings), 1.6 + 0.42 * len(names))
        panels = figure.subplots(1, len(rankings), sharey=True, squeeze=False)[0]
        for axes, ranking in zip(panels, rankings, strict=True):
            _panel(axes, ranking, names)
        panels[0].set_yticks(range(len(names)), [lettering.show(name) for name in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        save_figure(figure, path)
    return lettering.key


def _panel(axes: "Axes", ranking: Ranking, names: list[str]) -> None:
    order = [ranking.scored.variants.index(name) for name in names]
    values, intervals = ranking.values[order], [ranking.interval(place) for place in order]
    heights = np.arange(len(names))
    error = np.abs(np.array([(i.low, i.high) for i in intervals]).T - values)
    axes.errorbar(values, heights, xerr=error, fmt="o", color="C0", capsize=3, elinewidth=1)
    for by_seed in ranking.by_seed[order].T if len(ranking.scored.seeds) > 1 else ():
        axes.plot(by_seed, heights, linestyle="", marker="|", color="C1", markersize=9)
    axes.axvline(ranking.values[ranking.best], color="0.6", linewidth=0.8, linestyle="--")
    better = "higher" if ranking.measure.higher_is_better else "lower"
    axes.set(xlabel=f"{ranking.measure.title}\n{better} is better", title="")
    axes.grid(axis="x", linewidth=0.4)
