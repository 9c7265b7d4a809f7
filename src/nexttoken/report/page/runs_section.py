"""The section of runs: a sortable table of scores, costs and the settings that differ, and the comparison of two."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nexttoken.metrics.intervals import noise_band, score_interval
from nexttoken.metrics.probabilities import mean_and_spread
from nexttoken.report.markdown import NOTHING, digits_for
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.pairs import MAX_RUNS
from nexttoken.report.page.section import Section, number, render
from nexttoken.report.seeds import replicas_among
from nexttoken.report.tables import metrics_in_tables, reference_levels
from nexttoken.runs.folder import differences, flatten
from nexttoken.runs.scored_runs import Run

MAX_COLUMNS = 12
MAX_LETTERS = 40  # of a value
MISSING = object()


def section(chapter: Chapter) -> Section:
    """A row for each run, the best first, the references below them, and each pair's difference for the script."""
    own, *others = metrics_in_tables(chapter.runs[0].scores)
    numbers = sorted({fold.number for run in chapter.runs for fold in run.folds})
    settings = differing_settings(chapter.configs)
    compared, pairs = chapter.runs[:MAX_RUNS], chapter.pairs
    html = render(
        "runs.html.jinja",
        key=chapter.key,
        metric=own,
        others=others,
        numbers=numbers,
        rows=[_row(run, groups.tolist(), chapter) for run, groups in zip(chapter.runs, chapter.groups, strict=True)],
        references=reference_levels(chapter.runs[0], chapter.metric),
        settings=dict(list(settings.items())[:MAX_COLUMNS]),
        more_settings=dict(list(settings.items())[MAX_COLUMNS:]),
        noise=_noise_sentences(chapter),
        compared=[run.title for run in compared],
        folders={run.title: run.folder for run in chapter.runs},
        first=pairs[0] if pairs else None,
        has_more=len(chapter.runs) > MAX_RUNS,
    )
    shown = [[one.one, one.other, one.num_rows, one.value, one.sentence, one.by_fold] for one in pairs]
    return Section("runs", "Runs", html, {"pairs": shown} if pairs else None)


def _row(run: Run, groups: list[str], chapter: Chapter) -> dict[str, Any]:
    metric = chapter.metric
    found = score_interval(metric, run.scored(metric), groups)
    by_fold = run.by_fold(metric)
    known = [score for score in by_fold.values() if not np.isnan(score)]
    mean, spread = mean_and_spread(known) if known else (float("nan"), float("nan"))
    saved = [fold.metrics for fold in run.folds]
    finished = max((fold.folder / "metrics.json").stat().st_mtime for fold in run.folds)
    memory = [one["peak_memory_mb"] for one in saved if one.get("peak_memory_mb")]
    return {
        "name": run.title,
        "score": run.score(metric),
        "interval": found,
        "digits": digits_for(found),
        "others": [run.score(other) for other in metrics_in_tables(run.scores)[1:]],
        "mean": mean,
        "spread": spread if len(known) > 1 else float("nan"),
        "by_fold": by_fold,
        "tokens": run.tokens_a_row,
        "seconds": sum(one.get("seconds") or 0.0 for one in saved) or None,
        "memory": max(memory, default=None),
        "time": finished,
        "date": f"{datetime.fromtimestamp(finished, UTC):%Y-%m-%d %H:%M}",
    }


def _noise_sentences(chapter: Chapter) -> list[str]:
    """For each configuration with several seeds: how far two runs with other seeds differ in 95 % of cases."""
    sentences, metric = [], chapter.metric
    for group in replicas_among(chapter.runs):
        if len(group) > 1:
            names = ", ".join(run.title for run in group)
            band = noise_band(np.array([[run.score(metric) for run in group]]))
            sentences.append(
                f"{names} differ by their seed alone. Two such runs differ by less than {number(band)} in 95 % of cases"
                " (noise band): a smaller difference between two single runs says nothing."
            )
    return sentences


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The value of each run by the short name of each setting that is not the same in all, the seed last."""
    found = {key for config in configs[1:] for key in differences(configs[0], config)}
    keys = sorted(found, key=lambda key: (key == "seed", key))
    flat = [flatten(config) for config in configs]
    names = dict(zip(keys, _short_names(keys), strict=True))
    return {names[key]: [_words(of_run.get(key, MISSING)) for of_run in flat] for key in keys}


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last words of dotted keys, as many as tell them apart."""
    names = []
    for key in keys:
        words = key.split(".")
        size = next(
            (n for n in range(1, len(words)) if sum(other.split(".")[-n:] == words[-n:] for other in keys) == 1),
            len(words),
        )
        size = max(size, 2) if words[-1].startswith("_") and len(words) > 1 else size
        names.append(".".join(words[-size:]).replace("._target_", ""))
    return names


def _words(value: Any) -> str:
    if value is MISSING:
        return NOTHING
    text = "none" if value is None else str(value).rpartition("nexttoken.")[2]
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
