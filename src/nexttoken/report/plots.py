"""The two pictures of a run: how it learned, and whether its probabilities can be taken at their word."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nexttoken.metrics.probabilities import expected_calibration_error, reliability
from nexttoken.report.figures import Lettering, plain_text
from nexttoken.report.tables import reference_names
from nexttoken.runs.scored_runs import Run, probabilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES: dict[str, Any] = {
    "uniform_log_loss": ":",
    "prior_log_loss": "-.",
    "baseline_log_loss": "--",
    "best_possible_log_loss": "-",
}
FURTHER_LINE = (0, (5, 1, 1, 1, 1, 1))  # of a second baseline
REFIT_LINES = {False: "-", True: "--"}
NUM_COLUMNS = 2
FEW_POINTS = 2  # dev scores that are dots rather than a line
MIN_POINTS, NUM_POINTS = 6, 24  # of a fold's training loss: means of its share of the steps, or noise hides the course
LOGGED_PER_POINT = 4  # logged losses of a point, where there are few


def learning_curves(runs: Sequence[Run], path: Path) -> list[str]:
    """Write a PNG with a panel per run: train loss (thin) and dev log loss (thick) against steps, a colour per fold.

    A fold without dev scores, as after one epoch, has a diamond at its end: the log loss of its held-out rows.
    The task's metric on the dev rows, where it is another one, has an axis of its own on the right (dotted).
    Returns `[1] 芸能` for every run name that no installed font can write.
    """
    num_columns = min(NUM_COLUMNS, len(runs))
    num_rows = -(-len(runs) // num_columns)
    lettering = Lettering.for_names([run.name for run in runs])
    with lettering.figure(7.2 * num_columns, 4.4 * num_rows, path) as figure:
        panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
        for axes, run in zip_longest(panels, runs):
            if run:
                _learning_panel(axes, run, lettering)
            else:
                axes.set_axis_off()
    return lettering.key


def reliability_diagram(oof: pd.DataFrame, path: Path, title: str = "") -> None:
    """Write a PNG of accuracy against confidence in the most probable class, with each bin's count and the ECE.

    `oof` has label and one probability column per class, as oof.csv does.
    """
    probs, labels = probabilities(oof), oof["label"].to_numpy()
    bins = reliability(probs, labels)
    confidence, accuracy, counts = np.array([(b.confidence, b.accuracy, b.count) for b in bins]).T
    # A bin's accuracy is a share of `count` rows: its standard error shows which gaps are only noise.
    error = np.sqrt(accuracy * (1 - accuracy) / counts)
    ece = expected_calibration_error(probs, labels)
    lettering = Lettering.for_names([title])
    heading = f"{lettering.show(title)}\nECE {ece:.4f}, {len(labels):,} rows".strip()
    with lettering.figure(6.4, 6.4, path) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
        axes.errorbar(confidence, accuracy, error, marker="o", capsize=3, label="accuracy ± standard error")
        for x, y, count in zip(confidence, accuracy, counts, strict=True):
            axes.annotate(f"{count:,.0f}", (x, y), xytext=(7, -12), textcoords="offset points", fontsize=8)
        axes.set(title=heading, ylabel="accuracy (share right)", ylim=(0, 1.02))
        axes.legend(loc="upper left")
        below.bar(confidence, counts, width=0.06, color="0.6")
        label, floor = "confidence (probability of the most probable class)", 1 / probs.shape[1]  # at least this
        below.set(xlabel=label, ylabel="rows", xlim=(floor - 0.05, 1.02))


def _learning_panel(axes: "Axes", run: Run, lettering: Lettering) -> None:
    drawn = []
    for fold in run.folds:
        if fold.curve is None:
            continue
        colour = f"C{fold.number % 10}"
        dev = fold.curve[["step", "dev_log_loss"]].dropna()
        for refit, points in fold.curve[["step", "train_loss", "refit"]].dropna().groupby("refit"):
            number = int(np.clip(len(points) // LOGGED_PER_POINT, MIN_POINTS, NUM_POINTS))
            train = points.groupby(np.arange(len(points)) * number // max(len(points), number)).mean()
            line = REFIT_LINES[bool(refit)]
            axes.plot(
                train["step"], train["train_loss"], line, color=colour, alpha=0.4 if len(dev) else 0.8, linewidth=0.9
            )
            drawn += [*train["train_loss"].quantile([0, 0.95])]  # the first steps may be far off
        if len(dev):
            size = 6 if len(dev) > FEW_POINTS else 10
            label = f"fold {fold.number}, dev"
            axes.plot(dev["step"], dev["dev_log_loss"], ".-", color=colour, linewidth=2, markersize=size, label=label)
            drawn += [*dev["dev_log_loss"]]
        elif (score := fold.metrics.get("log_loss")) is not None:
            label = f"fold {fold.number}, held-out rows"
            axes.plot(fold.curve["step"].max(), score, "D", color=colour, markeredgecolor="0.2", label=label)
            drawn.append(score)
    axes.plot([], [], color="0.5", alpha=0.6, linewidth=0.9, label="train (thin, averaged)")
    if any(fold.curve is not None and fold.curve["refit"].any() for fold in run.folds):
        axes.plot([], [], REFIT_LINES[True], color="0.5", alpha=0.6, linewidth=0.9, label="train and dev rows (refit)")
    for key, name in reference_names(run.data).items():
        levels = [fold.metrics[key] for fold in run.folds if fold.metrics.get(key) is not None]
        if levels:
            drawn.append(float(np.mean(levels)))
            line, label = LINES.get(key, FURTHER_LINE), f"{name} {drawn[-1]:.4f}"
            axes.axhline(drawn[-1], color="0.25", linewidth=1, linestyle=line, label=label)
    low, high = np.nanmin(drawn), np.nanmax(drawn)
    margin = 0.06 * (high - low)
    title, limits = f"{lettering.show(run.name)} on {plain_text(run.data.dataset)}", (low - margin, high + margin)
    axes.set(title=title, xlabel="optimizer steps", ylabel="loss (nats per row)", ylim=limits)
    right = _draw_metric(axes, run)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.22 if right else 1.01, 1))


def _draw_metric(axes: "Axes", run: Run) -> bool:
    """Draw the task's metric after each epoch on an axis of its own; return False where no fold has it on dev rows."""
    curves = [(fold.number, fold.curve) for fold in run.folds if fold.curve is not None]
    points = {number: curve[["step", "dev_metric"]].dropna() for number, curve in curves}
    if not any(map(len, points.values())):
        return False
    right = axes.twinx()
    for number, of_fold in points.items():
        right.plot(of_fold["step"], of_fold["dev_metric"], ":", color=f"C{number % 10}", linewidth=2, marker="x")
    right.set_ylabel(f"{plain_text(run.metric.title)} (dotted, dev)")
    return True
