"""The pictures of a grid: its variants side by side, and which of their settings matter."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexttoken.commands.sweep_variants import Variant

MIN_VARIANTS = 3  # of two, the table says it all


def draw_grid(variants: Sequence["Variant"], keys: Sequence[str]) -> list[str]:
    """Draw variants that differ in `keys`, below output/<task>/sweeps/; return a line for each picture.

    A score is the mean over the seeds and folds that all variants have. Nothing is drawn of fewer than three variants,
    or where one has no value of a key.
    """
    shared = set.intersection(*(set(one.scores) for one in variants))
    settings = [dict(one.lstrip("+~").partition("=")[::2] for one in variant.settings) for variant in variants]
    if len(variants) < MIN_VARIANTS or not shared or not all(key in of_one for of_one in settings for key in keys):
        return []
    from nexttoken.report.setting_plots import Axis, Trial, draw_settings

    scores = [fmean(variant.scores[place] for place in shared) for variant in variants]
    trials = [Trial(of_one, score) for of_one, score in zip(settings, scores, strict=True)]
    axes = [Axis(key, tuple(sorted({of_one[key] for of_one in settings}, key=_number_or_text))) for key in keys]
    job = variants[0].jobs[0]
    folder = Path(job.run).parent / "sweeps" / "-".join(axis.name for axis in axes)
    return draw_settings(trials, axes, job.metric, job.higher_is_better, folder)


def _number_or_text(value: str) -> tuple[bool, Any]:
    try:
        return False, float(value)
    except ValueError:
        return True, value
