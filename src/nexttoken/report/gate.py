"""The policies of a gate on the same rows, from never to always asking a second time: a table and a picture."""

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
HEADER = ["policy", "accuracy", "log loss", "asked again", "tokens a row", "ms a row"]
AXES = {
    "share_searched": "rows asked again (%)",
    "tokens": "tokens a row",
    "seconds": "milliseconds a row",
    "accuracy": "accuracy (%)",
    "log_loss": "log loss",
}
SCALES = {"share_searched": 100, "tokens": 1, "seconds": 1000, "accuracy": 100, "log_loss": 1}
CURVES = {"min_top1": "threshold on the best class", "min_margin": "threshold on its lead"}
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
        gain, error = gates.difference(trial, decision, decisions[ALWAYS])
        beside = f"{-gain:+.4f} ± {error:.4f}" if trial.by_loss else f"{100 * gain:+.1f} ± {100 * error:.1f}"
        cells = [f"{outcome.accuracy:.1%}", f"{outcome.log_loss:.4f}", f"{outcome.share_searched:.1%}"]
        cost = [f"{outcome.tokens:.1f}", f"{1000 * outcome.seconds:.1f}"]
        rows.append([name, *cells, *cost, "" if name == ALWAYS else beside])
    return markdown([*HEADER, f"{score_of(trial).replace('_', ' ')} vs. always"], rows)


def score_of(trial: Trial) -> str:
    """The score that the thresholds were chosen by, as a field of an Outcome."""
    return "log_loss" if trial.by_loss else "accuracy"


def gate_plot(trial: Trial, gate: Gate, outcomes: Mapping[str, Outcome], path: Path, title: str) -> None:
    """Write a PNG of the score against share asked again, tokens and time; `outcomes` are those of the policies.

    The curves move one threshold of `gate` from never to always. Never and always are horizontal lines, gates are
    marks. No standard errors: all policies answer the same questions, so only paired differences have one that helps.
    """
    grids = {CURVES[name]: gates_over(trial, gate, (name,)) for name in CURVES}
    curves = {name: [gates.score(trial, decide(trial, one)) for one in grid] for name, grid in grids.items()}
    blind = [gates.at_random(trial, gate, share) for share in np.linspace(0, 1, 21)]
    lettering = Lettering.for_names([title])
    score, form = score_of(trial), "{:.4f}" if trial.by_loss else "{:.1%}"
    labels = {name: f"{name}: {form.format(getattr(outcome, score))}" for name, outcome in outcomes.items()}
    with lettering.figure(16.0, 5.2, path) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, key in zip(panels, AXES, strict=False):
            _line(axes, (key, score), blind, color="0.6", linestyle="--", label="as many rows, at random")
            for name, along in curves.items():
                _line(axes, (key, score), along, marker=".", label=name)
            for name, style in LEVELS.items():
                level = SCALES[score] * getattr(outcomes[name], score)
                axes.axhline(level, color="0.25", linewidth=1, linestyle=style, label=labels[name])
            for name in filter(outcomes.get, MARKS):
                mark: dict[str, Any] = {"marker": MARKS[name], "markersize": 12, "linestyle": "", "label": labels[name]}
                _line(axes, (key, score), [outcomes[name]], **mark)
            axes.set(xlabel=AXES[key])
            axes.grid(alpha=0.25)
        panels[0].set(ylabel=AXES[score])
        panels[0].legend(fontsize=8, loc="best")
        figure.suptitle(f"{lettering.show(title)}: {len(trial.ids):,} held-out rows")


def _line(axes: "Axes", keys: tuple[str, str], outcomes: list[Outcome], **style: Any) -> None:
    """A line through `outcomes`; `keys` are the fields of its x and y."""
    places, scores = ([SCALES[key] * getattr(outcome, key) for outcome in outcomes] for key in keys)
    axes.plot(places, scores, **style)
