"""Scores of each class, the classes that are confused, and the worst class in a sentence."""

from dataclasses import dataclass

import numpy as np

from nexttoken.report.page.outcome import Measured, Outcome, measured_sums

FEW_CLASSES = 12  # up to which the confusion is shown as a matrix, and the class most often taken is named
MAX_PAIRS = 15  # of confused classes


@dataclass(frozen=True)
class ClassScore:
    """A class with the number of its rows, of the rows decided for it, and of those decided rightly."""

    name: str
    count: int
    decided: int
    right: int
    recall: Measured
    precision: Measured
    f1: Measured
    log_loss: Measured
    mean_probability: Measured
    share: float  # of the rows
    excess: Measured  # mean probability less the share


@dataclass(frozen=True)
class Confused:
    """So many of the rows of class `label` were taken for another class."""

    label: str
    taken_for: str
    count: int
    share: float  # of the label's rows


def class_scores(outcome: Outcome) -> list[ClassScore]:
    """The scores of each class, in order; the score of a class without rows is NaN."""
    kinds = np.arange(len(outcome.names))
    labelled = (outcome.labels[:, None] == kinds).astype(np.float64)
    taken = (outcome.decisions[:, None] == kinds).astype(np.float64)
    tables = [labelled, taken, labelled * taken, labelled * outcome.losses[:, None], outcome.probs]
    numbers = measured_sums(tables, outcome.groups, _scores)
    counts, decided, right = (table.sum(axis=0).astype(int).tolist() for table in tables[:3])
    columns = (outcome.names, counts, decided, right, *numbers[:5], labelled.mean(axis=0).tolist(), numbers[5])
    return [ClassScore(*values) for values in zip(*columns, strict=True)]


def _scores(
    labelled: np.ndarray, taken: np.ndarray, right: np.ndarray, losses: np.ndarray, probs: np.ndarray
) -> list[np.ndarray]:
    number = labelled.sum(axis=-1, keepdims=True)
    f1 = 2 * right / (labelled + taken)
    return [right / labelled, right / taken, f1, losses / labelled, probs / number, (probs - labelled) / number]


def confusion(outcome: Outcome) -> np.ndarray:
    """Numbers of rows (K, K): row k is the label, column j the decision."""
    number = len(outcome.names)
    places = outcome.labels * number + outcome.decisions
    return np.bincount(places, minlength=number**2).reshape(number, number)


def most_confused(outcome: Outcome) -> list[Confused]:
    """The pairs of classes with the most confused rows, the most first."""
    counts = confusion(outcome)
    totals = counts.sum(axis=1)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    labels, taken = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS], counts.shape)
    return [
        Confused(outcome.names[k], outcome.names[j], int(wrong[k, j]), float(wrong[k, j] / totals[k]))
        for k, j in zip(labels.tolist(), taken.tolist(), strict=True)
        if wrong[k, j]
    ]


def worst_class_sentence(outcome: Outcome) -> str:
    """The class whose rows are decided rightly least often, among those with rows, and what most of them become."""
    counts, names = confusion(outcome), outcome.names
    totals, right = counts.sum(axis=1), counts.diagonal()
    recall = np.where(totals > 0, right / np.maximum(totals, 1), np.inf)
    worst = int(np.lexsort((-totals, recall))[0])
    text = f"The worst class is {names[worst]}: {right[worst]:,} of its {totals[worst]:,} rows are decided rightly"
    wrong = np.where(np.arange(len(names)) == worst, 0, counts[worst])
    if wrong.any() and len(names) <= FEW_CLASSES:
        text += f"; {wrong.max():,} are taken for {names[int(wrong.argmax())]}"
    return f"{text}."
