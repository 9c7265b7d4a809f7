"""Pictures of searched settings: which of them matter, and the settings of good and bad trials side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.data.packages import INSTALL, is_installed
from nexttoken.report.figures import Lettering, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_TRIALS = 4  # of which importances are taken
NUM_TICKS = 5


@dataclass(frozen=True)
class Trial:
    """Settings by key, and their score; None where it was given up before all its folds."""

    settings: Mapping[str, Any]
    score: float | None


@dataclass(frozen=True)
class Axis:
    """The values of a setting at places between 0 and 1: a choice in its order, or numbers from `low` to `high`."""

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False

    @property
    def name(self) -> str:
        return self.key.lstrip("+").rpartition(".")[2]

    def place(self, value: Any) -> float:
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        scale = log10 if self.is_log else float
        span = scale(self.high) - scale(self.low)
        return (scale(value) - scale(self.low)) / span if span else 0.5

    @property
    def ticks(self) -> list[tuple[float, str]]:
        if self.choices:
            return [(self.place(choice), str(choice)) for choice in self.choices]
        shares = [tick / (NUM_TICKS - 1) for tick in range(NUM_TICKS)]
        if self.is_log:
            return [(share, f"{self.low * (self.high / self.low) ** share:.2g}") for share in shares]
        return [(share, f"{self.low + (self.high - self.low) * share:.4g}") for share in shares]


def draw_settings(
    trials: Sequence[Trial], axes: Sequence[Axis], metric: str, higher_is_better: bool, folder: Path
) -> list[str]:
    """Write parallel_coordinates.png and, of two settings and four trials with scores that differ, importance.png.

    Returns a line for each picture; without Optuna one that says how to get the second.
    """
    complete = [trial for trial in trials if trial.score is not None]
    if len(complete) < 2:
        return []
    path = folder / "parallel_coordinates.png"
    parallel_coordinates(trials, axes, metric, higher_is_better, path)
    lines = [f"picture: {path}"]
    if len(axes) < 2 or len(complete) < MIN_TRIALS or len({trial.score for trial in complete}) < 2:
        return lines
    path = folder / "importance.png"
    if not is_installed("optuna"):
        return [*lines, f"{path} shows which settings matter, with optuna: {INSTALL['optuna']}"]
    importance_bars(importances(complete, axes, higher_is_better), metric, len(complete), path)
    return [*lines, f"picture: {path}"]


def parallel_coordinates(
    trials: Sequence[Trial], axes: Sequence[Axis], metric: str, higher_is_better: bool, path: Path
) -> None:
    """Write a PNG with an axis for each setting and one for the score, and a line for each trial.

    The darker a line, the better its score, and the best is red; trials that were given up are grey and dashed, and
    end before the axis of the score.
    """
    scores = sorted(trial.score for trial in trials if trial.score is not None)
    last, best = Axis(metric, (), scores[0], scores[-1]), scores[-1] if higher_is_better else scores[0]
    lettering = Lettering.for_names([text for axis in axes for _, text in axis.ticks] + [metric])
    with lettering.figure(2.2 * len(axes) + 3.0, 4.6, path) as figure:
        panel = figure.subplots()
        for trial in sorted(trials, key=lambda one: (one.score is not None, one.score == best)):
            places = [axis.place(trial.settings[axis.key]) for axis in axes]
            if trial.score is None:
                panel.plot(places, color="0.75", linewidth=0.8, linestyle="--")
                continue
            goodness = last.place(trial.score) if higher_is_better else 1 - last.place(trial.score)
            colour, width = ("C3", 2.4) if trial.score == best else (str(0.75 * (1 - goodness)), 1.0)
            panel.plot([*places, last.place(trial.score)], color=colour, linewidth=width)
        for x, axis in enumerate([*axes, last]):
            _draw_axis(panel, x, axis, lettering)
        panel.set(xlim=(-0.4, len(axes) + 0.6), ylim=(-0.05, 1.05), yticks=[], xticks=range(len(axes) + 1))
        panel.set_xticklabels([lettering.show(axis.name) for axis in axes] + [plain_text(metric)])
        panel.spines[:].set_visible(False)


def _draw_axis(axes: "Axes", x: int, axis: Axis, lettering: Lettering) -> None:
    axes.axvline(x, color="0.3", linewidth=1)
    for place, text in axis.ticks:
        axes.annotate(
            lettering.show(text),
            (x, place),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
        )


def importances(trials: Sequence[Trial], axes: Sequence[Axis], higher_is_better: bool) -> dict[str, float]:
    """The share of the scores' variance that each setting explains, by fANOVA (Hutter et al. 2014), largest first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {axis.key: _distribution(axis) for axis in axes}
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    for trial in trials:
        params = {axis.key: trial.settings[axis.key] for axis in axes}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.score))
    shares = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    return {key: float(share) for key, share in shares.items()}


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.choices:
        return CategoricalDistribution(axis.choices)
    return FloatDistribution(axis.low, axis.high, log=axis.is_log)


def importance_bars(shares: Mapping[str, float], metric: str, num_trials: int, path: Path) -> None:
    """Write a PNG with a bar for each setting, the most important one at the top."""
    lettering = Lettering.for_names([*shares, metric])
    with lettering.figure(7.2, 1.4 + 0.4 * len(shares), path) as figure:
        axes = figure.subplots()
        names = [lettering.show(key) for key in shares]
        bars = axes.barh(names, [*shares.values()], color="C0")
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.1), xlabel=f"share of the variance of {plain_text(metric)} (fANOVA, {num_trials} trials)")
