"""The section on mistakes: confused classes, how far probabilities can be trusted, and slices with worse scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

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
from nexttoken.report.page.label_noise import label_noise
from nexttoken.report.page.order_effects import order_effects
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.section import Section, render
from nexttoken.report.page.slices import factors_of, slice_metric, slice_scores, text_factors, worst_slice_sentence
from nexttoken.report.page.text_parts import Texts, swap_of

Factors = Mapping[str, pd.Categorical]

MAX_RUNS = 6
MAX_NUMBERS = 3_000_000  # probabilities of all shown runs, to which temperatures are fitted in some seconds


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
