"""The end of a search: its best trials, whether the best is better than the default beyond noise, what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from nexttoken.commands.sweep import Job
from nexttoken.commands.sweep_end import next_commands, paired_interval
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import first_five
from nexttoken.report.terminal import show

if TYPE_CHECKING:
    from nexttoken.commands.search.search import Search

MAX_TRIALS = 10  # in the table
GAIN_DIGITS = 3  # decimals at most of an interval over a few folds
NOT_FINISHED = (
    "The table is of the trials so far; the process that ends last, or the same command later, shows the end."
)


def print_end(search: "Search") -> str:
    """Train the best and the default with further seeds, if asked; print the page, draw the pictures.

    Where other processes still run trials, only the table so far. Returns a line on failed trainings, "" for none.
    """
    trials, complete = search.journal.trials, ranked(search)
    failed = [jobs_of(trial)[-1] for trial in trials if trial.state.name == "FAIL"]
    parts = [counts(trials), trial_table(search, complete)]
    print()
    if elsewhere := search.journal.running_elsewhere():
        show("\n\n".join([*parts, *elsewhere, NOT_FINISHED]))
    else:
        both = {trial.number: trial for trial in (complete[0], trials[0])}
        jobs = {number: [*jobs_of(trial), *further_jobs(search, trial)] for number, trial in both.items()}
        failed += [job for own in jobs.values() for job in own if job.error]
        scored = {number: [job for job in own if not job.error] for number, own in jobs.items()}
        show("\n\n".join([*parts, verdict(search, scored[complete[0].number], scored[0])]))
        print("\n" + "\n".join([*draw(search), f"best: {best_command(search, complete[0])}"]))
        for command in next_commands([job for own in scored.values() for job in own]):
            print(f"next: {command}")
    named = first_five(f"{job.title} ({job.error})" for job in failed)
    return f"{len(failed)} trainings failed: {named}" if failed else ""


def jobs_of(trial: Any) -> list[Job]:
    """The jobs of a finished trial as the journal has them; none of another one."""
    saved: list[Any] = trial.user_attrs.get("jobs", [])
    return [Job(**job | {key: tuple(job[key]) for key in ("settings", "overrides")}) for job in saved]


def ranked(search: "Search") -> list[Any]:
    """The complete trials, the best first; of equal ones the earlier."""
    sign = -1 if search.metric.higher_is_better else 1
    complete = [trial for trial in search.journal.trials if trial.state.name == "COMPLETE"]
    return sorted(complete, key=lambda trial: (sign * trial.value, trial.number))


def further_jobs(search: "Search", trial: Any) -> list[Job]:
    """The trial's folds with `sweep.seeds` - 1 further seeds."""
    first, space = search.journal.seed, search.space
    same = [one for one in space.overrides(trial.params) if not one.startswith("seed=")]
    seeds = range(first + 1, first + search.settings.seeds)
    return search.run_jobs([[*same, f"seed={seed}", f"fold={fold}"] for seed in seeds for fold in space.folds])


def counts(trials: Sequence[Any]) -> str:
    names = {"COMPLETE": "complete", "PRUNED": "given up after some folds", "FAIL": "failed", "RUNNING": "running"}
    numbers = {name: sum(trial.state.name == state for trial in trials) for state, name in names.items()}
    return f"{len(trials)} trials: {', '.join(f'{number} {name}' for name, number in numbers.items() if number)}."


def trial_table(search: "Search", complete: Sequence[Any]) -> str:
    """Markdown: the best trials and the default, with the gain over it and its 95 % interval over the folds."""
    from nexttoken.report.markdown import NOTHING, markdown

    if not complete:
        return "No trial is complete yet."
    default = jobs_of(search.journal.trials[0])
    shown = [*complete[:MAX_TRIALS], *(trial for trial in complete[MAX_TRIALS:] if trial.number == 0)]
    keys, rows = [*search.space.dimensions], []
    for trial in shown:
        unknown = NOTHING if trial.number else "the default"
        gain = with_interval(gains(search, jobs_of(trial), default)) if trial.number and default else unknown
        values = [str(trial.params.get(key, "its own")) for key in keys]
        rows.append([str(trial.number), f"{trial.value:.4f}", gain, *values])
    names = [key.lstrip("+").rpartition(".")[2] for key in keys]
    return markdown(["trial", jobs_of(complete[0])[0].metric, "gain (95 %)", *names], rows)


def with_interval(values: Sequence[float]) -> str:
    """The mean of gains with the 95 % interval that their spread gives; of one value without it."""
    from nexttoken.report.markdown import difference_cell, digits_for, interval_cell

    if len(values) < 2:
        return difference_cell(values[0])
    interval = paired_interval(values)
    return f"{difference_cell(fmean(values))} ({interval_cell(interval, '+', digits_for(interval, GAIN_DIGITS))})"


def gains(search: "Search", jobs: Sequence[Job], default: Sequence[Job]) -> list[float]:
    """The gain of each fold and seed of `jobs` over the default's, where both were trained; above 0: better."""
    sign = 1 if search.metric.higher_is_better else -1
    of_default = {(job.seed, job.fold): job.score for job in default}
    pairs = [(job.score, of_default.get((job.seed, job.fold))) for job in jobs]
    return [sign * (score - other) for score, other in pairs if score is not None and other is not None]


def verdict(search: "Search", best: Sequence[Job], default: Sequence[Job]) -> str:
    """Sentences on the best trial against the default, by further seeds where there are any."""
    if best[0].settings == default[0].settings:
        return "Nothing better than the default was found."
    number = len(search.space.folds)
    own, fresh = (gains(search, best[part], default[part]) for part in (slice(number), slice(number, None)))
    chosen = (
        f"The best trial is {with_interval(own)} better than the default on {number} folds, and was chosen as the"
        f" best of {len(search.journal.trials)}, which flatters it"
    )
    if not fresh:
        return f"{chosen}: {judgement(own)}. With sweep.seeds=3 the same command trains both with two further seeds."
    trained = f"{len(fresh)} trainings of each with further seeds, which chose nothing"
    band = noise(search, best, default)
    return f"{chosen}. In {trained}, it is {with_interval(fresh)} better: {judgement(fresh)}.{band}"


def judgement(values: Sequence[float]) -> str:
    """Words on gains over the default."""
    if len(values) < 2:
        return "one training cannot say whether that is noise"
    interval = paired_interval(values)
    if 0 in interval:
        return "within noise"
    return "better beyond noise" if interval.low > 0 else "worse beyond noise"


def noise(search: "Search", best: Sequence[Job], default: Sequence[Job]) -> str:
    """A sentence on how far seeds alone move the mean over the folds; "" where a training failed."""
    import numpy as np

    from nexttoken.metrics.intervals import noise_band

    number = len(search.space.folds)
    scores = [[job.score for job in jobs] for jobs in (best, default)]
    if any(len(own) != number * search.settings.seeds for own in scores):
        return ""
    band = noise_band(np.array(scores, dtype=float).reshape(2, -1, number).mean(axis=2))
    return f" Two runs of one configuration with other seeds differ by less than {band:.4f} in 95 % of cases."


def best_command(search: "Search", trial: Any) -> str:
    """The command that trains the best trial, whose finished folds it finds."""
    folds = ",".join(map(str, search.space.folds))
    same = [one for one in search.space.overrides(trial.params) if not one.startswith("name=")]
    name = typed_override("name", Path(jobs_of(trial)[0].run).name)
    return shlex.join(["python", "train.py", "-m", f"fold={folds}", *same, name])


def draw(search: "Search") -> list[str]:
    """Draw the trials and the importance of their settings; return a line for each picture."""
    from nexttoken.report.setting_plots import Trial, draw_settings

    known = {"COMPLETE": lambda trial: trial.value, "PRUNED": lambda trial: None}
    trials = [(trial, known[trial.state.name]) for trial in search.journal.trials if trial.state.name in known]
    shown = [Trial(trial.params, score(trial)) for trial, score in trials if trial.params]
    metric, folder = jobs_of(search.journal.trials[0])[0].metric, search.journal.folder
    axes = [one.axis for one in search.space.dimensions.values()]
    return draw_settings(shown, axes, metric, search.metric.higher_is_better, folder)
