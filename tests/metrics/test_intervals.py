"""Resampled means and their intervals, and scores of ordered marks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from nexttoken.metrics import intervals
from nexttoken.metrics.decisions import MARK_METRICS, absolute_errors, expected_marks, weighted_kappa
from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_means, two_sided_p

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))


def drawn(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values (V, S, N) and groups (N,)."""
    *size, seed = shape
    rng = np.random.default_rng(seed)
    return rng.normal(size=size), rng.integers(0, 4, size[-1])


@settings(max_examples=25)
@given(SHAPES)
def test_means_lie_within_the_values_and_move_and_grow_with_them(shape) -> None:
    values, groups = drawn(shape)
    means = resampled_means(values, groups, 50)
    assert means.shape == (50, shape[0])
    assert (means >= values.min(axis=(1, 2)) - 1e-12).all()
    assert (means <= values.max(axis=(1, 2)) + 1e-12).all()
    np.testing.assert_allclose(resampled_means(3 * values - 7, groups, 50), 3 * means - 7, atol=1e-9)
    np.testing.assert_array_equal(resampled_means(values, groups, 50), means)
    assert shape[1] * len(set(groups)) == 1 or (resampled_means(values, groups, 50, seed=1) != means).any()


@settings(max_examples=25)
@given(SHAPES)
def test_variants_are_drawn_alike_and_the_order_of_rows_and_names_of_groups_do_not_matter(shape) -> None:
    values, groups = drawn(shape)
    twice = resampled_means(np.concatenate([values, values]), groups, 50)
    np.testing.assert_allclose(twice[:, : shape[0]], twice[:, shape[0] :], atol=1e-12)
    order = np.random.default_rng(1).permutation(shape[2])
    shuffled = resampled_means(values[:, :, order], np.char.add("group", groups.astype(str))[order], 50)
    np.testing.assert_allclose(shuffled, twice[:, : shape[0]], atol=1e-9)


def test_all_rows_of_a_group_are_drawn_together() -> None:
    values = np.array([[[0.0, 2.0, 5.0, 5.0]]])
    means = resampled_means(values, np.array([0, 0, 1, 1]), 500)
    assert set(np.unique(means).tolist()) == {1.0, 3.0, 5.0}
    alone = resampled_means(values, np.array([3, 3, 3, 3]), 20)
    assert set(alone.ravel().tolist()) == {3.0}


def test_a_larger_group_weighs_more() -> None:
    means = resampled_means(np.array([[[0.0, 1.0, 1.0, 1.0]]]), np.array([0, 1, 1, 1]), 500)
    assert set(np.unique(means).tolist()) == {0.0, 0.75, 1.0}


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_drawing_in_pieces_changes_nothing(monkeypatch, piece: int) -> None:
    values, groups = drawn((2, 3, 12, 0))
    whole = resampled_means(values, groups, 101)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", piece)
    np.testing.assert_allclose(resampled_means(values, groups, 101), whole, atol=1e-12)


def test_constant_values_have_an_interval_of_one_point_and_one_outlier_a_wide_one() -> None:
    groups = np.arange(50)
    assert percentile_interval(resampled_means(np.full((1, 1, 50), 0.25), groups, 200)[:, 0]) == Interval(0.25, 0.25)
    values = np.zeros((1, 1, 50))
    values[0, 0, 0] = 1e300
    interval = percentile_interval(resampled_means(values, groups, 200)[:, 0])
    assert interval.low == 0
    assert 1e298 < interval.high < 1e300


def test_intervals_hold_their_middle_and_turn_round() -> None:
    draws = np.random.default_rng(0).normal(size=999)
    interval = percentile_interval(draws, 0.9)
    assert np.isclose(((draws >= interval.low) & (draws <= interval.high)).mean(), 0.9, atol=0.002)
    turned, negated = percentile_interval(-draws, 0.9), -interval
    np.testing.assert_allclose((turned.low, turned.high), (negated.low, negated.high))
    assert -interval == Interval(-interval.high, -interval.low)
    assert interval.low in interval
    assert np.nextafter(interval.high, 9) not in interval
    assert np.nan not in interval


@given(st.lists(st.sampled_from([-1.0, -0.0, 0.0, 1e-300, np.inf]), max_size=30))
def test_p_is_symmetric_and_never_zero(values: list[float]) -> None:
    draws = np.array(values)
    p = two_sided_p(draws)
    assert min(1.0, 2 / (len(draws) + 1)) <= p <= 1
    assert p == two_sided_p(-draws)
    assert not len(draws) or (draws != 0).any() or p == 1


def test_p_of_differences_that_are_not_numbers_is_not_significant() -> None:
    assert two_sided_p(np.ones(99)) == 0.02
    assert np.isnan(two_sided_p(np.full(99, np.nan)))
    assert np.isnan(two_sided_p(np.array([1.0] * 98 + [np.nan])))


MARKS = st.tuples(st.integers(2, 6), st.integers(1, 30), st.integers(0, 99))


@given(MARKS)
def test_kappa_of_certain_marks_is_that_of_sklearn(shape: tuple[int, int, int]) -> None:
    num_classes, num_rows, seed = shape
    given_, labels = np.random.default_rng(seed).integers(0, num_classes, (2, num_rows))
    kappa = weighted_kappa(np.eye(num_classes)[given_], labels)
    if len({*given_.tolist(), *labels.tolist()}) == 1:
        assert kappa == 0
        return
    assert np.isclose(kappa, cohen_kappa_score(labels, given_, labels=range(num_classes), weights="quadratic"))
    assert -1 - 1e-9 <= kappa <= 1


@given(MARKS)
def test_expected_marks_lie_between_the_lowest_and_the_highest(shape: tuple[int, int, int]) -> None:
    num_classes, num_rows, seed = shape
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(num_classes), num_rows), rng.integers(0, num_classes, num_rows)
    marks = expected_marks(probs)
    assert ((marks >= 0) & (marks <= num_classes - 1 + 1e-9)).all()
    np.testing.assert_allclose(expected_marks(probs, lowest=-3), marks - 3)
    np.testing.assert_allclose(absolute_errors(probs, labels), np.abs(marks - labels))
    np.testing.assert_allclose(
        absolute_errors(probs[:, ::-1], num_classes - 1 - labels), absolute_errors(probs, labels)
    )


@pytest.mark.filterwarnings("error")
def test_extreme_marks() -> None:
    assert weighted_kappa(np.eye(3), np.arange(3)) == 1
    assert np.isclose(weighted_kappa(np.eye(3)[::-1], np.arange(3)), -1)
    assert weighted_kappa(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 0
    assert weighted_kappa(np.ones((4, 1)), np.zeros(4, dtype=np.int64)) == 0
    assert absolute_errors(np.eye(3)[:0], np.zeros(0, dtype=np.int64)).shape == (0,)
    assert len({metric.name for metric in MARK_METRICS}) == len(MARK_METRICS)
