"""The first section of a chapter: the best run, the worst class and what to try next, in a few sentences."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError, counted
from nexttoken.metrics.intervals import score_interval
from nexttoken.metrics.probabilities import expected_calibration_error
from nexttoken.report.markdown import digits_for
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.class_scores import worst_class_sentence
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.section import Section, interval, number, render, row_link
from nexttoken.report.seeds import replicas_among
from nexttoken.report.tables import reference_key
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.scored_runs import Run, probabilities

NUM_WORST = 3  # rows that are named
MAX_ADVICES = 4
HIGH_CALIBRATION_ERROR = 0.05  # mean distance of confidence and accuracy, from which on a temperature gains something
RISEN = 0.01  # nats of dev loss above its minimum at the end of a training


def section(chapter: Chapter) -> Section:
    """The sentences and the advice."""
    outcome = Outcome.of(chapter.runs[0], chapter.groups[0])
    lead = [one.sentence for one in chapter.pairs if (one.one, one.other) == (0, 1)]
    sentences = [_best_sentence(chapter), *lead, worst_class_sentence(outcome)]
    html = render("short.html.jinja", sentences=sentences, worst=_worst_rows(chapter), advices=next_steps(chapter))
    return Section("short", "In short", html)


def _worst_rows(chapter: Chapter) -> list[dict[str, str]]:
    """The best run's rows with the highest loss: id, link and words."""
    oof, names = chapter.runs[0].oof, chapter.classes
    worst = oof.sort_values("loss", ascending=False, kind="stable").head(NUM_WORST)
    decided = probabilities(worst.drop(columns="loss")).argmax(axis=1)
    return [
        {"id": row_id, "link": row_link(chapter.key, row_id), "words": f"{names[label]} taken for {names[guess]}"}
        for row_id, label, guess in zip(worst["id"], worst["label"], decided, strict=True)
    ]


def _best_sentence(chapter: Chapter) -> str:
    run, metric = chapter.runs[0], chapter.metric
    found = score_interval(metric, run.scored(metric), chapter.groups[0].tolist())
    digits = digits_for(found)
    text = f"The best run is {run.title}: {metric.title} {number(run.score(metric), digits)}"
    if found is not None:
        text += f" (95 % interval {interval(found, digits)})"
    levels = {"the class prior": "prior_log_loss", "the baseline": "baseline_log_loss"}
    known = {name: run.weighted(reference_key(key, metric)) for name, key in levels.items()}
    beside = [f"{name} has {level:.{digits}f}" for name, level in known.items() if level is not None]
    folds = counted(len(run.folds), "fold")
    return f"{text} on {len(run.oof):,} rows of {folds}; {' and '.join(beside)}." if beside else f"{text}."


@dataclass(frozen=True)
class Advice:
    """A reason and what to do; `command` is "" where no single one does it."""

    reason: str
    command: str = ""


def next_steps(chapter: Chapter) -> list[Advice]:
    """The first advices that fit the best run, the most urgent first."""
    every = [advice for rule in RULES for advice in rule(chapter, chapter.runs[0])]
    return every[:MAX_ADVICES]


def _weaker_than_simple(chapter: Chapter, run: Run) -> Iterator[Advice]:
    metric, score = chapter.metric, run.score(chapter.metric)
    baseline = run.weighted(reference_key("baseline_log_loss", metric))
    prior = run.weighted(reference_key("prior_log_loss", metric))
    if prior is not None and metric.is_better(prior, score):
        yield Advice(
            f"The class prior, which reads nothing, has {prior:.4f} and is better than the best run: look at the labels"
            " and at the prompts first.",
            _command("labels", f"run={run.folder}"),
        )
    elif baseline is not None and metric.is_better(baseline, score):
        yield Advice(
            f"The baseline has {baseline:.4f} and is better than the best run: blend both, then train with more rows,"
            " more epochs or a larger model.",
            _command("blend", f"runs={run.folder},baseline"),
        )


def _missing_folds(chapter: Chapter, run: Run) -> Iterator[Advice]:
    try:
        number = load_folds(run.folder / "folds.csv").number
    except (UserError, OSError):
        return
    left = sorted(set(range(number)) - {fold.number for fold in run.folds})
    if left and not _is_derived(chapter, run):
        names = ",".join(map(str, left))
        yield Advice(
            f"{len(left)} of {number} folds of {run.name} are not trained: the score is of a part of the rows. Type its"
            f" command again with -m fold={names}."
        )


def _dev_curve(chapter: Chapter, run: Run) -> Iterator[Advice]:
    rises, falls = [], []
    for fold in run.folds:
        if fold.curve is None:
            continue
        dev = fold.curve[fold.curve["refit"] == 0]["dev_log_loss"].dropna().to_numpy()
        if len(dev) > 1:
            rises.append(dev[-1] - dev.min() > RISEN)
            falls.append(dev.argmin() == len(dev) - 1)
    if rises and np.mean(rises) > 0.5:
        yield Advice(
            "The dev loss rises again before the training ends, so that the last epochs are of no use: try a lower"
            " fit.learning_rate, fewer epochs, or more training rows."
        )
    elif falls and np.mean(falls) > 0.5:
        yield Advice(
            f"The dev loss still falls at the end of the training in {sum(falls)} of {len(falls)} folds: type the run's"
            " command again with a larger trainer.max_epochs and another name."
        )


def _calibration(chapter: Chapter, run: Run) -> Iterator[Advice]:
    if (run.folder / "calibration.json").exists() or chapter.metric.needs != "probabilities":
        return
    error = expected_calibration_error(probabilities(run.oof), run.oof["label"].to_numpy())
    if error > HIGH_CALIBRATION_ERROR and len(run.folds) > 1:
        yield Advice(
            f"The probabilities are off by {error:.3f} on average (expected calibration error): calibrate them.",
            _command("calibrate", f"run={run.folder}"),
        )


def _blend(chapter: Chapter, run: Run) -> Iterator[Advice]:
    if any("blend" in config for config in chapter.configs):
        return
    ids = set(run.oof["id"])
    others = [one for one in chapter.runs[1:] if set(one.oof["id"]) == ids and one.folder.parent == run.folder.parent]
    if others and len(run.folds) > 1:
        yield Advice(
            f"{run.name} and {others[0].name} answered the same rows: their blend is usually better than either.",
            _command("blend", f"runs={run.folder},{others[0].folder}"),
        )


def _seeds(chapter: Chapter, run: Run) -> Iterator[Advice]:
    group = next(group for group in replicas_among(chapter.runs) if run in group)
    if len(group) == 1 and len(chapter.runs) > 1 and not _is_derived(chapter, run):
        yield Advice(
            "One seed only: how far chance alone moves a score is not known. Type the best run's command again with"
            " another seed and name."
        )


def _both_orders(chapter: Chapter, run: Run) -> Iterator[Advice]:
    try:
        has_pairs = "pairs" in getattr(chapter.load(run).parts.task, "offers", ())
    except UserError:
        return
    if has_pairs and not any(RunFolder(one.folder).asked_of for one in chapter.runs) and not _is_derived(chapter, run):
        yield Advice(
            "Pairs were asked in one order only: asking in both takes twice the time and averages out the order.",
            _command("ask", f"run={run.folder}", "inference=swap_averaged"),
        )


def _is_derived(chapter: Chapter, run: Run) -> bool:
    """True for a blend, and for a run asked in another way."""
    return "blend" in chapter.configs[chapter.runs.index(run)] or RunFolder(run.folder).asked_of is not None


def _command(name: str, *arguments: str) -> str:
    return shlex.join(["python", "-m", "nexttoken", name, *arguments])


RULES: Sequence[Callable[[Chapter, Run], Iterator[Advice]]] = (
    _weaker_than_simple,
    _missing_folds,
    _dev_curve,
    _calibration,
    _blend,
    _both_orders,
    _seeds,
)
