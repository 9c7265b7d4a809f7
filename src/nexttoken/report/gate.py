"""The policies of a gate on the same questions, from never searching to always searching: a table and a picture."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.inference import gate as gates
from nexttoken.inference.gate import ABOVE, Decision, Gate, Outcome, Trial, decide
from nexttoken.inference.gate_thresholds import CrossChosen, gates_over
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEVER, ALWAYS, CONFIGURED, CHOSEN = "never", "always", "gated (the run's thresholds)", "gated (chosen out of fold)"
HEADER = ["policy", "accuracy", "log loss", "searched", "ms per question", "accuracy vs. always"]
AXES = {"share_searched": "questions searched for (%)", "seconds": "milliseconds per question"}
SCALES = {"share_searched": 100, "seconds": 1000}
CURVES = {"min_top1": "threshold on the best option", "min_margin": "threshold on its lead"}
LEVELS = {NEVER: "-.", ALWAYS: ":"}
MARKS = {CHOSEN: "*", CONFIGURED: "P"}


def policies(trial: Trial, gate: Gate, configured: Mapping[int, Gate], chosen: CrossChosen) -> dict[str, Decision]:
    """The decisions of every policy, by its name in the table."""
    never, always = replace(gate, min_top1=0.0, min_margin=0.0), replace(gate, min_top1=ABOVE, min_margin=0.0)
    decisions = {NEVER: decide(trial, never), ALWAYS: decide(trial, replace(always, keep_confident=False))}
    if gate.keep_confident:
        decisions["always, the surer answer taken"] = decide(trial, always)
    if configured:
        decisions[CONFIGURED] = gates.decide_by_part(trial, trial.folds, configured)
    return {**decisions, CHOSEN: chosen.decision}


def table(trial: Trial, decisions: Mapping[str, Decision]) -> str:
    """Markdown: a row per policy."""
    rows = []
    for name, decision in decisions.items():
        outcome = gates.score(trial, decision)
        points, error = (100 * value for value in gates.difference(trial, decision, decisions[ALWAYS]))
        beside = "" if name == ALWAYS else f"{points:+.1f} ± {error:.1f}"
        cells = [f"{outcome.accuracy:.1%}", f"{outcome.log_loss:.4f}", f"{outcome.share_searched:.1%}"]
        rows.append([name, *cells, f"{1000 * outcome.seconds:.1f}", beside])
    return markdown(HEADER, rows)


def gate_plot(trial: Trial, gate: Gate, outcomes: Mapping[str, Outcome], path: Path, title: str) -> None:
    """Write a PNG of accuracy against share searched (left) and time (right); `outcomes` are those of the policies.

    The curves move one threshold of `gate` from never to always. Never and always are horizontal lines, gates are
    marks. No standard errors: all policies answer the same questions, so only paired differences have one that helps.
    """
    grids = {CURVES[name]: gates_over(trial, gate, (name,)) for name in CURVES}
    curves = {name: [gates.score(trial, decide(trial, one)) for one in grid] for name, grid in grids.items()}
    blind = [gates.at_random(trial, gate, share) for share in np.linspace(0, 1, 21)]
    lettering = Lettering.for_names([title])
    with lettering.figure(12.4, 5.2, path) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, key in zip(panels, AXES, strict=True):
            _line(axes, key, blind, color="0.6", linestyle="--", label="as many questions, at random")
            for name, along in curves.items():
                _line(axes, key, along, marker=".", label=name)
            labels = {name: f"{name}: {outcome.accuracy:.1%}" for name, outcome in outcomes.items()}
            for name, style in LEVELS.items():
                level = 100 * outcomes[name].accuracy
                axes.axhline(level, color="0.25", linewidth=1, linestyle=style, label=labels[name])
            for name in filter(outcomes.get, MARKS):
                _line(axes, key, [outcomes[name]], marker=MARKS[name], markersize=12, linestyle="", label=labels[name])
            axes.set(xlabel=AXES[key])
            axes.grid(alpha=0.25)
        panels[0].set(ylabel="accuracy (%)")
        panels[0].legend(fontsize=8, loc="lower right")
        figure.suptitle(f"{lettering.show(title)}: {len(trial.ids):,} held-out questions")


def _line(axes: "Axes", key: str, outcomes: list[Outcome], **style: Any) -> None:
    places = [SCALES[key] * getattr(outcome, key) for outcome in outcomes]
    axes.plot(places, [100 * outcome.accuracy for outcome in outcomes], **style)
