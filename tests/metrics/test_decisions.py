"""F-scores of decisions, equal to scikit-learn's, and thresholds that are chosen on other rows than they score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from nexttoken.metrics.decisions import WEIGHTED_KAPPA, at_threshold, choose_threshold, decided, f_beta, has_threshold
from nexttoken.metrics.named import metric_named
from nexttoken.metrics.probabilities import METRICS

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, num_rows: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(num_classes, 0.5), num_rows), rng.integers(0, num_classes, num_rows)


@given(
    SEEDS, st.integers(1, 40), st.integers(2, 7), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from(["macro", "micro"])
)
def test_f_scores_equal_scikit_learns(seed, num_rows, num_classes, beta, average):
    probs, labels = drawn(seed, num_rows, num_classes)
    expected = reference.fbeta_score(labels, probs.argmax(axis=1), beta=beta, average=average, zero_division=0)
    assert f_beta(probs, labels, beta, average) == pytest.approx(expected)
    assert metric_named(f"f_beta({beta}, {average})").score(probs, labels) == pytest.approx(expected)


@given(SEEDS, st.integers(1, 40))
def test_the_binary_f_score_is_the_second_classs(seed, num_rows):
    probs, labels = drawn(seed, num_rows, 2)
    expected = reference.f1_score(labels, probs.argmax(axis=1), zero_division=0)
    assert metric_named("f1(binary)").score(probs, labels) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:.*cohen_kappa_score. is undefined")
@given(SEEDS, st.integers(2, 40), st.integers(2, 6))
def test_kappa_equals_scikit_learns_of_the_rounded_mean_class(seed, num_rows, num_classes):
    probs, labels = drawn(seed, num_rows, num_classes)
    found = np.rint(probs @ np.arange(num_classes)).astype(int)
    expected = reference.cohen_kappa_score(labels, found, weights="quadratic", labels=range(num_classes))
    assert WEIGHTED_KAPPA.score(probs, labels) == pytest.approx(0.0 if np.isnan(expected) else expected, abs=1e-9)


@given(SEEDS, st.integers(1, 30), st.floats(0.01, 0.99))
def test_a_threshold_decides_and_keeps_the_order_of_rows(seed, num_rows, threshold):
    probs, _ = drawn(seed, num_rows, 2)
    moved = at_threshold(probs, threshold)
    assert moved.sum(axis=1) == pytest.approx(np.ones(num_rows))
    assert (moved.argmax(axis=1) == (probs[:, 1] > threshold)).all()
    assert (np.diff(moved[np.argsort(probs[:, 1], kind="stable"), 1]) >= -1e-15).all()


def test_a_threshold_of_a_half_changes_nothing_and_certain_rows_stay_certain():
    probs = np.array([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]])
    assert at_threshold(probs, 0.5) is probs
    assert at_threshold(probs, 0.9)[[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_threshold_with_the_best_score_is_chosen():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1])
    metric = metric_named("f1(binary)")
    assert metric.score(probs, labels) == 0.0
    threshold = choose_threshold(metric, probs, labels)
    assert threshold == pytest.approx(0.25)
    assert metric.score(at_threshold(probs, threshold), labels) == 1.0


@given(SEEDS, st.integers(1, 40), st.sampled_from(["f1(macro)", "f1(binary)", "f_beta(2, macro)"]))
def test_no_other_threshold_is_better_on_the_rows_that_chose_it(seed, num_rows, name):
    probs, labels = drawn(seed, num_rows, 2)
    metric = metric_named(name)
    best = metric.score(at_threshold(probs, choose_threshold(metric, probs, labels)), labels)
    for threshold in np.linspace(0.02, 0.98, 13):
        assert metric.score(at_threshold(probs, threshold), labels) <= best + 1e-12


def test_equally_good_thresholds_leave_the_half():
    probs = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert choose_threshold(metric_named("f1(macro)"), probs, np.array([0, 1])) == 0.5


def test_thresholds_are_of_f_scores_of_two_classes():
    assert has_threshold(metric_named("f1(macro)"), 2)
    assert not has_threshold(metric_named("f1(macro)"), 3)
    assert not any(has_threshold(metric, 2) for metric in METRICS)


@given(SEEDS, st.integers(1, 30), st.integers(2, 6))
def test_the_best_label_is_the_one_that_the_metric_scores(seed, num_rows, num_classes):
    probs, _ = drawn(seed, num_rows, num_classes)
    found = decided(metric_named("qwk"), probs, 0.5)
    assert found.sum(axis=1) == pytest.approx(np.ones(num_rows))
    assert found.argmax(axis=1).tolist() == np.rint(probs @ np.arange(num_classes)).astype(int).tolist()
    assert decided(metric_named("auc"), probs, 0.1) is probs
    by_threshold = decided(metric_named("f1(macro)"), probs, 0.1).argmax(axis=1)
    expected = probs[:, 1] > 0.1 if num_classes == 2 else probs.argmax(axis=1)
    assert by_threshold.tolist() == expected.astype(int).tolist()
