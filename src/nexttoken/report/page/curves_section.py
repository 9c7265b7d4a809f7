"""The section of curves: training and dev loss of all runs and folds on one axis, with the chosen checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, render
from nexttoken.report.page.svg import NUM_COLOURS, Axis, Plot
from nexttoken.report.tables import reference_levels
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.runs.scored_runs import Fold, Run

NUM_POINTS = 50  # of a training loss: each the mean of its share of the steps, or noise hides the course
LOSS, METRIC = "dev_log_loss", "dev_metric"


def section(chapter: Chapter) -> Section | None:
    """The plots, boxes that show and hide runs and folds, and the numbers of each fold; None without any curve."""
    shown = [run for run in chapter.runs if _has_curve(run)]
    if not shown:
        return None
    plots = [_plot(shown, LOSS, "loss (nats per row)", reference_levels(shown[0], LOG_LOSS))]
    if any(fold.curve is not None and fold.curve[METRIC].notna().any() for run in shown for fold in run.folds):
        plots.append(
            _plot(shown, METRIC, f"{chapter.metric.title} of dev rows", reference_levels(shown[0], chapter.metric))
        )
    html = render(
        "curves.html.jinja",
        key=chapter.key,
        plots=[plot.svg() for plot in plots],
        names=[run.title for run in shown],
        folds=sorted({fold.number for run in shown for fold in run.folds}),
        num_colours=NUM_COLOURS,
        rows=[_row(run, fold) for run in shown for fold in run.folds if fold.curve is not None],
        without=[run.title for run in chapter.runs if not _has_curve(run)],
        has_refit=any(fold.curve is not None and fold.curve["refit"].any() for run in shown for fold in run.folds),
    )
    return Section("curves", "Curves", html)


def thinned(points: pd.DataFrame, number: int = NUM_POINTS) -> pd.DataFrame:
    """About `number` points at most, each the mean of its share of the rows."""
    return points.groupby(np.arange(len(points)) * number // max(len(points), number)).mean()


def chosen_point(fold: Fold, column: str = LOSS) -> tuple[float, float] | None:
    """The step and the dev value of the checkpoint that was kept; None where no dev rows chose one."""
    if fold.curve is None or fold.metrics.get("best_step") is None:
        return None
    dev = _dev_points(fold, column)
    found = dev[dev["step"] == fold.metrics["best_step"]]
    return (float(found["step"].iloc[0]), float(found[column].iloc[0])) if len(found) else None


def _has_curve(run: Run) -> bool:
    return any(fold.curve is not None for fold in run.folds)


def _dev_points(fold: Fold, column: str) -> pd.DataFrame:
    assert fold.curve is not None
    return fold.curve.loc[fold.curve["refit"] == 0, ["step", column]].dropna()


def _plot(runs: Sequence[Run], column: str, label: str, levels: Mapping[str, float]) -> Plot:
    """One plane; each mark of a run and a fold has the classes run-<place> and fold-<number>."""
    folds = [fold for run in runs for fold in run.folds if fold.curve is not None]
    heights, last = [*levels.values()], max(float(fold.curve["step"].max()) for fold in folds if fold.curve is not None)
    for fold in folds:
        heights += _dev_points(fold, column)[column].tolist()
        for _, points in _training(fold, column):
            heights += points["train_loss"].quantile([0.02, 0.98]).tolist()  # single batches may be far off
    names = ", ".join(run.title for run in runs[:NUM_COLOURS])
    steps = Axis(0.0, max(last * 1.02, 1.0), "optimizer steps")
    plot = Plot(steps, Axis.over(heights, label), f"{label} by step of {names}")
    plot.levels(levels)
    for place, run in enumerate(runs):
        for fold in run.folds:
            if fold.curve is not None:
                _draw_fold(plot, run, fold, column, f"s{place % NUM_COLOURS} run-{place} fold-{fold.number}")
    return plot


def _training(fold: Fold, column: str) -> list[tuple[bool, pd.DataFrame]]:
    """The thinned training loss of the training and of the second one (refit); none beside another metric."""
    assert fold.curve is not None
    if column != LOSS:
        return []
    parts = fold.curve[["step", "train_loss", "refit"]].dropna().groupby("refit")
    return [(bool(refit), thinned(points)) for refit, points in parts]


def _draw_fold(plot: Plot, run: Run, fold: Fold, column: str, style: str) -> None:
    name = f"{run.title}, fold {fold.number}"
    for refit, points in _training(fold, column):
        steps, losses = points["step"].tolist(), points["train_loss"].tolist()
        what = "second training on all rows" if refit else "training"
        plot.line(steps, losses, f"{name}: {what}", f"{style} thin{' dashed' if refit else ''}")
        if len(steps) == 1:
            plot.dot(steps[0], losses[0], f"{name}: {what}", f"{style} faint", 3)
    dev = _dev_points(fold, column)
    steps, values = dev["step"].tolist(), dev[column].tolist()
    if len(steps) > 1:
        plot.line(steps, values, f"{name}: dev rows", f"{style} dev")
    for step, value in zip(steps, values, strict=True):
        plot.dot(step, value, f"{name}: {value:.4f} on dev rows at step {step:,.0f}", f"{style} dev", 2.5)
    if chosen := chosen_point(fold, column):
        step, value = chosen
        plot.dot(step, value, f"{name}: chosen checkpoint, {value:.4f} at step {step:,.0f}", f"{style} chosen", 6)


def _row(run: Run, fold: Fold) -> dict[str, Any]:
    """The numbers of a fold's curve."""
    assert fold.curve is not None
    dev, chosen = _dev_points(fold, LOSS)[LOSS], chosen_point(fold)
    first = fold.curve[fold.curve["refit"] == 0]
    train = first["train_loss"].dropna()
    return {
        "name": run.title,
        "fold": fold.number,
        "steps": float(first["step"].max()) if len(first) else float("nan"),
        "chosen": chosen[0] if chosen else None,
        "chosen_loss": chosen[1] if chosen else None,
        "last_loss": float(dev.iloc[-1]) if len(dev) else None,
        "train_loss": float(thinned(train.to_frame(), 20)["train_loss"].iloc[-1]) if len(train) else None,
    }
