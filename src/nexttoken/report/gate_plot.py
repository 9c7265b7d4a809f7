"""The picture of a gate: what accuracy costs in searches and in time, beside never, always and asking at random."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.inference.gate import Gate
from nexttoken.inference.gate_thresholds import gates_over
from nexttoken.inference.gate_trial import Outcome, Trial, at_random, curve
from nexttoken.report.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"share_searched": "questions searched for (%)", "seconds": "milliseconds per question"}
SCALES = {"share_searched": 100, "seconds": 1000}
CURVES = {"min_top1": "threshold on the best option", "min_margin": "threshold on its lead"}
MARKS = "*Ps^v"


def gate_plot(
    trial: Trial,
    gate: Gate,
    levels: Mapping[str, Outcome],
    points: Mapping[str, Outcome],
    path: Path,
    title: str,
) -> None:
    """Write a PNG of accuracy against share searched (left) and time (right).

    The curves move one threshold of `gate` from never to always. `levels` are drawn as horizontal lines, `points` as
    marks. No standard errors: all policies answer the same questions, so only paired differences have one that helps.
    """
    curves = {CURVES[name]: curve(trial, gates_over(trial, gate, (name,))) for name in CURVES}
    blind = [at_random(trial, gate, share) for share in np.linspace(0, 1, 21)]
    figure = new_figure(12.4, 5.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, AXES, strict=True):
        _line(axes, key, blind, color="0.6", linestyle="--", label="as many questions, at random")
        for name, outcomes in curves.items():
            _line(axes, key, outcomes, marker=".", label=name)
        for style, (name, level) in zip(("-.", ":"), levels.items(), strict=False):
            axes.axhline(100 * level.accuracy, color="0.25", linewidth=1, linestyle=style, label=_label(name, level))
        for mark, (name, outcome) in zip(MARKS, points.items(), strict=False):
            _line(axes, key, [outcome], marker=mark, markersize=12, linestyle="", label=_label(name, outcome))
        axes.set(xlabel=AXES[key])
        axes.grid(alpha=0.25)
    panels[0].set(ylabel="accuracy (%)")
    panels[0].legend(fontsize=8, loc="lower right")
    figure.suptitle(f"{title}: {len(trial.ids):,} held-out questions".replace("$", r"\$"))
    save_figure(figure, path)


def _line(axes: "Axes", key: str, outcomes: list[Outcome], **style: Any) -> None:
    places = [SCALES[key] * getattr(outcome, key) for outcome in outcomes]
    axes.plot(places, [100 * outcome.accuracy for outcome in outcomes], **style)


def _label(name: str, outcome: Outcome) -> str:
    return f"{name}: {outcome.accuracy:.1%}"
