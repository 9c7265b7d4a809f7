"""The first section of a chapter: the best run, the worst class and what to try next, in a few sentences."""

import numpy as np
import pandas as pd

from nexttoken.metrics.intervals import score_interval
from nexttoken.report.markdown import digits_for
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.next_steps import next_steps
from nexttoken.report.page.pairs import pair_differences
from nexttoken.report.page.section import Section, interval, number, render
from nexttoken.report.tables import reference_key
from nexttoken.runs.scored_runs import Run, classes_of, probabilities

FEW_CLASSES = 12  # up to which the class that takes most of a worse one's rows is named


def section(chapter: Chapter) -> Section:
    """The sentences and the advice."""
    sentences = [_best_sentence(chapter), *_second_sentence(chapter), *_worst_class_sentence(chapter.runs[0])]
    return Section("short", "In short", render("short.html.jinja", sentences=sentences, advices=next_steps(chapter)))


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
    return (
        f"{text} on {len(run.oof):,} rows of {_count(len(run.folds), 'fold')}; {' and '.join(beside)}."
        if beside
        else f"{text}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _second_sentence(chapter: Chapter) -> list[str]:
    pairs = pair_differences(chapter.runs[:2], [one.tolist() for one in chapter.groups[:2]], chapter.metric)
    return [one.sentence for one in pairs]


def _worst_class_sentence(run: Run) -> list[str]:
    """The class whose rows are decided rightly least often, among those with rows."""
    oof, names = run.oof, classes_of(run.folds[0].oof)
    labels, decided = oof["label"].to_numpy(), probabilities(oof).argmax(axis=1)
    counts = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels[labels == decided], minlength=len(names))
    recall = np.where(counts > 0, right / np.maximum(counts, 1), np.inf)
    worst = int(np.lexsort((-counts, recall))[0])
    text = f"The worst class is {names[worst]}: {right[worst]:,} of its {counts[worst]:,} rows are decided rightly"
    taken = pd.Series(decided[(labels == worst) & (decided != worst)]).value_counts()
    if len(taken) and len(names) <= FEW_CLASSES:
        text += f"; {taken.iloc[0]:,} are taken for {names[int(taken.index[0])]}"
    return [f"{text}."]
