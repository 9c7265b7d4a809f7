"""The section on mistakes: confused classes, trust in probabilities, slices with worse scores, and doubtful labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.near_duplicates import group_ids
from nexttoken.report.page import reliability
from nexttoken.report.page.both_orders import find_both_orders
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.class_scores import (
    FEW_CLASSES,
    class_scores,
    confusion,
    most_confused,
    worst_class_sentence,
)
from nexttoken.report.page.order_effects import order_effects
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.section import Section, render, row_link
from nexttoken.report.page.slices import factors_of, slice_metric, slice_scores, text_factors, worst_slice_sentence
from nexttoken.report.page.text_parts import Texts, swap_of

Factors = Mapping[str, pd.Categorical]

MAX_RUNS = 6
MAX_NUMBERS = 3_000_000  # probabilities of all shown runs, to which temperatures are fitted in some seconds
MAX_LISTED = 30
MAX_COMPARED = 4_000  # rows whose whole texts are compared, at about 1 s
SURE = 0.8  # the probability that every run has to give its wrong decision
MAX_LETTERS = 90


def section(chapter: Chapter) -> Section:
    """The best runs' mistakes, one run shown at a time."""
    number = max(1, min(MAX_RUNS, MAX_NUMBERS // (len(chapter.runs[0].oof) * len(chapter.classes))))
    runs = chapter.runs[:number]
    outcomes = [Outcome.of(run, groups) for run, groups in zip(runs, chapter.groups, strict=False)]
    texts, swap = Texts.of(chapter), swap_of(chapter)
    by_text = text_factors(texts)
    html = render(
        "mistakes.html.jinja",
        key=chapter.key,
        runs=[run.title for run in runs],
        is_cut=len(chapter.runs) > number,
        why_no_texts=chapter.why_no_examples,
        panels=[
            _panel(chapter, place, outcome, _of_rows(by_text, texts.find(outcome.ids)))
            | {
                "orders": order_effects(outcome, swap, texts, find_both_orders(run, outcome.ids.tolist()))
                if swap
                else None
            }
            for place, (run, outcome) in enumerate(zip(runs, outcomes, strict=True))
        ],
        noise=label_noise(chapter, outcomes, texts),
    )
    return Section("mistakes", "Where it is wrong", html)


def _panel(chapter: Chapter, place: int, outcome: Outcome, by_text: Factors) -> dict[str, Any]:
    """The values of one run that the template shows."""
    run, metric = chapter.runs[place], slice_metric(outcome, chapter.metric)
    after = reliability.calibrated_probs(run)
    slices = slice_scores(outcome, factors_of(run, outcome, by_text), metric, after)
    counts, is_matrix = confusion(outcome), len(outcome.names) <= FEW_CLASSES
    return {
        "names": outcome.names,
        "worst_class": worst_class_sentence(outcome),
        "confusion": _cells(counts) if is_matrix else [],
        "pairs": [] if is_matrix else most_confused(outcome),
        "classes": class_scores(outcome),
        "all_rows": reliability.of_all_rows(outcome, after),
        "by_class": reliability.by_class(outcome, after),
        "metric": metric,
        "slices": slices,
        "worst_slice": worst_slice_sentence(slices, metric),
    }


def _of_rows(factors: Factors, places: np.ndarray | None) -> Factors:
    return {} if places is None else {name: values[places] for name, values in factors.items()}


def _cells(counts: np.ndarray) -> list[list[tuple[int, float]]]:
    """The count of each cell and its share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [[*zip(*pair, strict=True)] for pair in zip(counts.tolist(), shares.tolist(), strict=True)]


@dataclass(frozen=True)
class DoubtfulRow:
    """A row with its label, the class that the runs decide for, and the least sure run's probability of that."""

    id: str
    link: str
    label: str
    decided: str
    probability: float
    text: str


@dataclass(frozen=True)
class LabelNoise:
    """Groups of alike rows with different labels, and rows that all runs decide otherwise; of each the first ones.

    `whole_texts` is False where no texts are here, so that rows of a group share their prompt at least.
    """

    num_contradictions: int
    contradictions: list[list[DoubtfulRow]]
    num_agreed: int
    agreed: list[DoubtfulRow]
    whole_texts: bool
    is_cut: bool


def label_noise(chapter: Chapter, outcomes: Sequence[Outcome], texts: Texts) -> LabelNoise:
    """The doubtful labels among the rows of the best run."""
    best = outcomes[0]
    places = texts.find(best.ids)
    excerpts = [""] * len(best.ids) if places is None else [texts.prompts[place][:MAX_LETTERS] for place in places]

    def row(place: int, probability: float) -> DoubtfulRow:
        names, own = best.names, str(best.ids[place])
        link = row_link(chapter.key, own)
        decided, label = names[best.decisions[place]], names[best.labels[place]]
        return DoubtfulRow(own, link, label, decided, probability, excerpts[place])

    sure = best.probs.max(axis=1)
    groups, is_cut = _contradicting_groups(best, texts, places)
    least = _least_sure(outcomes)
    agreed = np.flatnonzero(least >= SURE)
    agreed = agreed[np.argsort(-least[agreed], kind="stable")]
    return LabelNoise(
        len(groups),
        [[row(place, float(sure[place])) for place in group] for group in groups[:MAX_LISTED]],
        len(agreed),
        [row(place, float(least[place])) for place in agreed[:MAX_LISTED].tolist()],
        places is not None,
        is_cut,
    )


def _contradicting_groups(best: Outcome, texts: Texts, places: np.ndarray | None) -> tuple[list[list[int]], bool]:
    """The places of alike rows with different labels, and whether only some of the rows were compared."""
    rows = _mixed(best.groups, best.labels, np.arange(len(best.labels)))
    compared = rows[:MAX_COMPARED]
    alike = best.groups[compared]
    if places is not None and len(compared):
        alike = group_ids(["\n".join([texts.prompts[place], *texts.answers[place]]) for place in places[compared]])
    kept = _mixed(alike, best.labels[compared], compared)
    names = dict(zip(compared.tolist(), alike.tolist(), strict=True))
    groups: dict[object, list[int]] = {}
    for place in kept.tolist():
        groups.setdefault(names[place], []).append(place)
    return [*groups.values()], len(compared) < len(rows)


def _mixed(groups: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` whose group has more than one label."""
    _, places = np.unique(groups, return_inverse=True)
    number = places.max(initial=-1) + 1
    low, high = np.full(number, np.iinfo(np.int64).max), np.full(number, -1)
    np.minimum.at(low, places, labels)
    np.maximum.at(high, places, labels)
    return rows[(low < high)[places]]


def _least_sure(outcomes: Sequence[Outcome]) -> np.ndarray:
    """The least probability (N,) that the runs give the best run's wrong decision; 0 where it is not that of all."""
    best = outcomes[0]
    least = np.where(best.decisions != best.labels, 1.0, 0.0)
    for one in outcomes:
        places = {row: place for place, row in enumerate(one.ids)}
        own = np.array([places.get(row, -1) for row in best.ids])
        same = (own >= 0) & (one.decisions[own] == best.decisions)
        least = np.where(same, np.minimum(least, one.probs[own, best.decisions]), 0.0)
    return least
