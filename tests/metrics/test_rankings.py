"""MAP, reciprocal rank and AUC: each by its definition, and equal to scikit-learn's where that has it."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from nexttoken.metrics.probabilities import METRICS, accuracy
from nexttoken.metrics.rankings import (
    QUIZ_METRICS,
    area_under_curve,
    average_precisions,
    chance_map,
    chance_reciprocal_rank,
    map_at,
    map_at_3,
    reciprocal_ranks,
)


def tied_probs(seed: int, num_rows: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of which many are equal, and labels."""
    rng = np.random.default_rng(seed)
    tied = rng.integers(1, 4, (num_rows, num_classes)).astype(float)
    return tied / tied.sum(axis=1, keepdims=True), rng.integers(0, num_classes, num_rows)


def _map_by_hand(probs: np.ndarray, labels: np.ndarray) -> float:
    """Kaggle's definition, row by row: precision at the rank of the one right answer, if that is among three."""
    scores = []
    for row, label in zip(probs, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda place: (-row[place], place))[:3]
        scores.append(1 / (ranked.index(label) + 1) if label in ranked else 0.0)
    return sum(scores) / len(scores)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 18))
def test_map_at_3_is_the_competitions_own(seed: int, num_examples: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    tied = rng.integers(1, 4, (num_examples, num_classes)).astype(float)  # many equal probabilities
    probs, labels = tied / tied.sum(axis=1, keepdims=True), rng.integers(0, num_classes, num_examples)
    score = map_at_3(probs, labels)
    assert score == pytest.approx(_map_by_hand(probs, labels), abs=1e-12)
    assert accuracy(probs, labels) <= score + 1e-12
    assert score <= 1


def test_map_at_3_by_rank() -> None:
    probs = np.array([[0.4, 0.3, 0.2, 0.1]])
    assert [map_at_3(probs, np.array([k])) for k in range(4)] == pytest.approx([1, 1 / 2, 1 / 3, 0])
    assert map_at_3(np.full((1, 5), 0.2), np.array([1])) == 0.5  # ties keep the order of the options
    assert map_at_3(np.array([[0.0, 1.0, 0.0]]), np.array([0])) == 0.5  # an absent third option is no harm


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 30), st.integers(1, 30))
def test_mean_average_precision_is_the_reciprocal_rank_up_to_its_number(seed, num_rows, num_classes, number):
    probs, labels = tied_probs(seed, num_rows, num_classes)
    scores, of_all = average_precisions(probs, labels, number), reciprocal_ranks(probs, labels)
    assert scores == pytest.approx(np.where(of_all >= 1 / (number + 0.5), of_all, 0))
    assert map_at(1).score(probs, labels) == accuracy(probs, labels)
    assert map_at(num_classes).score(probs, labels) == pytest.approx(of_all.mean())


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 12))
def test_the_reciprocal_rank_of_distinct_probabilities_is_scikit_learns(seed, num_rows, num_classes):
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(num_classes), num_rows), rng.integers(0, num_classes, num_rows)
    expected = reference.label_ranking_average_precision_score(np.eye(num_classes)[labels], probs)
    assert reciprocal_ranks(probs, labels).mean() == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(2, 5))
def test_the_area_under_the_curve_is_scikit_learns(seed, num_rows, num_classes):
    probs, labels = tied_probs(seed, max(num_rows, num_classes), num_classes)
    labels[:num_classes] = np.arange(num_classes)  # scikit-learn wants every class
    if num_classes == 2:
        expected = reference.roc_auc_score(labels, probs[:, 1])
    else:
        expected = reference.roc_auc_score(labels, probs, multi_class="ovr", labels=range(num_classes))
    assert area_under_curve(probs, labels) == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_rows_of_one_class_have_no_area_under_the_curve(num_classes):
    probs = np.full((4, num_classes), 1 / num_classes)
    with warnings.catch_warnings(action="error"):
        assert np.isnan(area_under_curve(probs, np.ones(4, dtype=int)))


def test_classes_without_a_row_are_left_out_of_the_mean_area():
    probs = np.array([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.7, 0.2]])
    assert area_under_curve(probs, np.array([0, 0, 1])) == 1.0


def test_chance_of_an_order():
    assert chance_map([1]) == 1
    assert chance_map([2, 4, 5]) == pytest.approx((1.5 / 2 + (11 / 6) / 4 + (11 / 6) / 5) / 3)
    assert chance_map([4], at=25) == chance_reciprocal_rank([4]) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert chance_reciprocal_rank([1, 3]) == pytest.approx((1 + (11 / 6) / 3) / 2)


@given(st.integers(1, 6), st.integers(1, 8))
def test_chance_is_the_mean_over_all_places_of_the_label(num_options, number):
    probs = np.arange(num_options, 0, -1) / sum(range(1, num_options + 1))
    scores = [average_precisions(probs[None], np.array([label]), number).item() for label in range(num_options)]
    assert chance_map([num_options], number) == pytest.approx(np.mean(scores))


def test_quizzes_are_scored_by_every_metric_and_map_at_3():
    assert [metric.name for metric in QUIZ_METRICS] == [*(metric.name for metric in METRICS), "map_at_3"]
    probs, labels = tied_probs(2, 50, 5)
    for metric in QUIZ_METRICS:
        gain = metric.score(np.eye(5)[labels], labels) - metric.score(probs, labels)
        assert (gain > 0) == metric.higher_is_better, metric.name
