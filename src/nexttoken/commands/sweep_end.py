"""The end of a sweep: runs and folds with mean and spread, the best variant, whether it is noise, what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nexttoken.commands.sweep import Job
from nexttoken.commands.sweep_variants import Variant, comparable, keys_that_differ, ranked
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError, counted
from nexttoken.report.terminal import show

if TYPE_CHECKING:
    from nexttoken.metrics.intervals import Interval

INCOMPARABLE = ("task", "input_dir", "experiment", "debug", "sweep")  # keys by which runs are not compared
MAX_COMMANDS = 3  # of one kind
AGAIN = "Once the cause is mended, type the same command again: finished folds are not trained twice."


def print_end(jobs: Sequence[Job]) -> None:
    """Print the page and the next commands; nothing where none was trained."""
    if shown := page(jobs):
        print()
        show(shown)
        best = [f"best: {_own_command(order[0])}" for group in comparable(jobs) if len(order := ranked(group)) > 1]
        print("\n" + "\n".join([*_pictures(jobs), *best, *(f"next: {command}" for command in next_commands(jobs))]))


def page(jobs: Sequence[Job]) -> str:
    """Markdown: for each data set and metric the table, and the best in a sentence; "" where none was trained."""
    groups = comparable(jobs)
    parts = [f"{_table(group)}\n\n{_verdict(group)}" for group in groups]
    if len(groups) > 1:
        parts = [f"{group[0].data}\n\n{part}" for group, part in zip(groups, parts, strict=True)]
    if groups and any(job.error for job in jobs):
        parts.append(AGAIN)
    return "\n\n".join(parts)


def next_commands(jobs: Sequence[Job]) -> list[str]:
    """For each data set: compare the variants, train the best runs' other folds, and predict; then make the page.

    The comparison is first: it wants the same folds of all variants.
    """
    commands = []
    for group in comparable(jobs):
        variants = ranked(group)
        commands += [*_compare(variants), *_other_folds(variants[0]), _predict(variants[0])]
    tasks = dict.fromkeys(Path(group[0].run).parent for group in comparable(jobs))
    folders = tasks if len(tasks) < 2 else dict.fromkeys(task.parent for task in tasks)  # one page for several tasks
    return [*commands, *(shlex.join(["python", "-m", "nexttoken", "page", str(folder)]) for folder in folders)]


def _pictures(jobs: Sequence[Job]) -> list[str]:
    """A line for each picture of the jobs, which are drawn by this."""
    from nexttoken.commands.sweep_pictures import draw_grid

    groups = [ranked(group) for group in comparable(jobs)]
    return [line for variants in groups for line in draw_grid(variants, keys_that_differ(variants))]


def _table(jobs: Sequence[Job]) -> str:
    from nexttoken.report.markdown import loss_cell, markdown, mean_cell

    scores: dict[str, dict[int, float | None]] = {}
    for job in jobs:
        scores.setdefault(job.run, {})[job.fold] = job.score
    folds = sorted({fold for run in scores.values() for fold in run})
    rows = []
    for run, by_fold in scores.items():
        known = [score for score in by_fold.values() if score is not None]
        rows.append([run, *(loss_cell(by_fold.get(fold)) for fold in folds), mean_cell(known)])
    return markdown([f"{jobs[0].metric} of", *(f"fold {fold}" for fold in folds), "mean ± spread"], rows)


def _verdict(jobs: Sequence[Job]) -> str:
    """Sentences on the best variant and on how far the second is, or on seeds where there is one variant."""
    best, *others = ranked(jobs)
    values, where = list(best.scores.values()), " and ".join(best.runs)
    number = counted(len(values), "fold")
    seeds = len({seed for seed, _ in best.scores})
    number = f"{number} of {seeds} seeds" if seeds > 1 else number
    score = f"{best.jobs[0].metric} {sum(values) / len(values):.4f}{_interval(values)}"
    first = f"Best: {best.name}, {score}, the mean of {number} ({where})."
    return f"{first} {_distance(best, others[0])}" if others else _of_one(best)


def _of_one(variant: Variant) -> str:
    """A sentence on the only variant: its mean, and the noise of its seeds."""
    import numpy as np

    from nexttoken.metrics.intervals import noise_band

    values = list(variant.scores.values())
    mean = f"One variant, {variant.jobs[0].metric} {sum(values) / len(values):.4f}{_interval(values)} on average."
    folds = {job.fold for job in variant.jobs}
    by_seed = [
        [score for job in variant.jobs if job.run == run and (score := job.score) is not None] for run in variant.runs
    ]
    complete = [scores for scores in by_seed if len(scores) == len(folds)]
    if len(complete) < 2:
        return mean
    band = noise_band(np.array([np.mean(complete, axis=1)]))
    return (
        f"{mean} Its {len(complete)} runs differ in the seed alone: two of them differ by less than {band:.4f} in 95 %"
        " of cases, and a smaller difference between other runs is noise."
    )


def _interval(values: Sequence[float]) -> str:
    """The 95 % interval of a mean in parentheses; "" of a single value."""
    from nexttoken.report.markdown import digits_for, interval_cell

    if len(values) < 2:
        return ""
    interval = paired_interval(values)
    return f" (95 % interval {interval_cell(interval, digits=digits_for(interval))})"


def _distance(best: Variant, second: Variant) -> str:
    """The distance of the second on the seeds and folds of both, and whether their spread tells them apart."""
    from nexttoken.report.markdown import digits_for, interval_cell

    sign = 1 if best.jobs[0].higher_is_better else -1
    shared = [place for place in best.scores if place in second.scores]
    if not shared:
        return f"{second.name} has other folds, and cannot be compared with it."
    worse = [sign * (best.scores[place] - second.scores[place]) for place in shared]
    mean = sum(worse) / len(worse)
    if len(worse) < 2:
        return (
            f"Second: {second.name}, {mean:.4f} worse; one fold cannot say whether that is noise: train more folds,"
            " or compare the rows."
        )
    interval = paired_interval(worse)
    digits = digits_for(interval)
    verdict = "within noise" if 0 in interval else "beyond noise"
    return (
        f"Second: {second.name}, {mean:z.{digits}f} worse on the {len(worse)} folds of both (95 % interval"
        f" {interval_cell(interval, '+', digits)}): {verdict}."
    )


def paired_interval(differences: Sequence[float]) -> "Interval":
    """95 % interval of the mean of two numbers or more, by Student's t."""
    import numpy as np
    from scipy.stats import t

    from nexttoken.metrics.intervals import Interval

    mean, number = float(np.mean(differences)), len(differences)
    half = float(t.ppf(0.975, number - 1) * np.std(differences, ddof=1) / number**0.5)
    return Interval(mean - half, mean + half)


def _other_folds(variant: Variant) -> list[str]:
    """The commands that train the folds which the variant's runs do not have; [] where the folds are not known."""
    from nexttoken.data.folds import load_folds
    from nexttoken.runs.folder import RunFolder

    commands = []
    for run in variant.runs[:MAX_COMMANDS]:
        folder, job = RunFolder(Path(run)), next(job for job in variant.jobs if job.run == run)
        try:
            numbers = range(load_folds(folder.path / "folds.csv").number)
        except UserError:
            continue
        left = [str(number) for number in numbers if not folder.fold(number).is_finished]
        same = [one for one in job.overrides if one.partition("=")[0] not in ("fold", "name")]
        name = typed_override("name", folder.path.name)
        if left:
            commands.append(shlex.join(["python", "train.py", "-m", f"fold={','.join(left)}", *same, name]))
    return commands


def _own_command(variant: Variant) -> str:
    """The command that trains the variant's folds and seeds, and no other variant."""
    folds, seeds = sorted({str(job.fold) for job in variant.jobs}), dict.fromkeys(job.seed for job in variant.jobs)
    given = {"fold": ",".join(folds), "seed": ",".join(seeds)}
    same = [one for one in variant.jobs[0].overrides if not given.get(one.partition("=")[0])]
    swept = [f"{key}={value}" for key, value in given.items() if value]
    return shlex.join(["python", "train.py", *(["-m"] if any("," in one for one in swept) else []), *swept, *same])


def _compare(variants: Sequence[Variant]) -> list[str]:
    """The command that compares the variants row by row; [] where they have not the same seeds and folds."""
    keys = keys_that_differ(variants)
    same = all(one.scores.keys() == variants[0].scores.keys() for one in variants)
    if not keys or not same or set(keys) & set(INCOMPARABLE):
        return []
    runs = [Path(run) for variant in variants for run in variant.runs]
    folder = runs[0].parent
    others = {path.parent.parent for path in folder.glob("*/fold*/metrics.json")} - set(runs)
    paths = [str(path) for path in (sorted(runs) if others else [folder])]
    return [shlex.join(["python", "-m", "nexttoken", "compare", *paths, f"by={','.join(keys)}"])]


def _predict(variant: Variant) -> str:
    return shlex.join(["python", "predict.py", typed_override("run", variant.runs[0])])
