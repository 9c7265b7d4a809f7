"""The picture of a report by genre: every run's accuracy beside the chance level, a panel per data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.metrics.probabilities import chance_accuracy
from nexttoken.report.by_tag import Section
from nexttoken.report.figures import Lettering, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP*X<>"  # ten colours and then the next marker: a hundred runs can be told apart


def plot_accuracies(sections: Sequence[Section], path: Path) -> list[str]:
    """Write a PNG: a line per genre, a mark per run with its 95 % interval, and chance as a dashed line.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    names = [name for section in sections for name in (section.title, *section.options, *section.models)]
    lettering = Lettering.for_names([*dict.fromkeys(names)])
    heights = list(map(_height, sections))
    with lettering.font():
        figure = new_figure(9.5, sum(heights))
        panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, section in zip(panels, sections, strict=True):
            _panel(axes, section, lettering)
        save_figure(figure, path)
    return lettering.key


def _panel(axes: "Axes", section: Section, lettering: Lettering) -> None:
    values, models = list(section.options), section.models
    places = np.arange(len(values))
    chances = [chance_accuracy(options) for options in section.options.values()]
    axes.plot(chances, places, color="0.3", linestyle="--", marker="|", markersize=12, label="chance")
    drawn = {value: {score.answers.model: score for score in section.scores(value)} for value in values}
    for number, model in enumerate(models):
        shift = 0.6 * ((number + 0.5) / len(models) - 0.5)  # side by side, not one over the other
        at = [place for place in places if model in drawn[values[place]]]
        scores = [drawn[values[place]][model] for place in at]
        accuracies = np.array([score.accuracy for score in scores])
        ends = [(i.low, i.high) if (i := score.interval) else (score.accuracy,) * 2 for score in scores]
        error = np.abs(np.array(ends).T - accuracies)
        axes.errorbar(
            accuracies, np.array(at) + shift, xerr=error, fmt=MARKERS[number // 10 % len(MARKERS)],
            color=f"C{number % 10}", markersize=5, elinewidth=0.8, label=lettering.show(model),
        )  # fmt: skip
    axes.set(title=lettering.show(section.title), xlabel="accuracy, 95 % interval", xlim=(-0.02, 1.02))
    axes.set_yticks(places, [lettering.show(value) for value in values])
    axes.set_ylim(len(values) - 0.5, -0.5)  # in the order of the tables
    axes.grid(axis="x", linewidth=0.4)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))


def _height(section: Section) -> float:
    """Inches: room for every genre's marks, and for a legend with every run."""
    num_models = len(section.answers)
    return 1.2 + max(len(section.options) * max(0.42, 0.07 * num_models), 0.19 * (num_models + 1))
