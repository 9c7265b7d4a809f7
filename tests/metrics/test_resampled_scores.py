"""Resampled scores of a metric, the error of a difference, and the noise of seeds, against values known otherwise."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from nexttoken.metrics import intervals
from nexttoken.metrics.intervals import (
    Interval,
    Rows,
    noise_band,
    paired_difference,
    percentile_interval,
    resampled_means,
    resampled_scores,
    resampled_sums,
    score_interval,
)
from nexttoken.metrics.named import metric_named

ACCURACY, AREA, AREA_BY = map(metric_named, ("accuracy", "auc", "auc_by(topic)"))


def drawn(num_rows: int, seed: int = 0, tags: bool = False) -> Rows:
    """Rows of two classes whose probabilities say something of the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_rows)
    second = 1 / (1 + np.exp(-(rng.normal(size=num_rows) + labels - 0.5)))
    values = [("red", "blue", "green")[row % 3] for row in range(num_rows)] if tags else None
    return Rows(np.column_stack([1 - second, second]), labels, values)


def test_taken_rows_keep_their_probabilities_labels_and_tags_together():
    rows = drawn(9, tags=True)
    some = rows.take(np.array([7, 0, 7]))
    np.testing.assert_array_equal(some.probs, rows.probs[[7, 0, 7]])
    np.testing.assert_array_equal(some.labels, rows.labels[[7, 0, 7]])
    assert list(some.tags) == ["blue", "red", "blue"]
    assert drawn(9).take(np.array([1])).tags is None


def test_a_metric_by_a_tag_has_no_score_without_the_tag():
    assert np.isnan(drawn(30).score(AREA_BY))
    assert drawn(30).score(AREA) == AREA.score(drawn(30).probs, drawn(30).labels)
    by_topic = [drawn(30, tags=True).take(np.arange(place, 30, 3)).score(AREA) for place in range(3)]
    assert drawn(30, tags=True).score(AREA_BY) == pytest.approx(np.mean(by_topic))


def test_values_are_of_each_row_where_the_metric_is_their_mean():
    rows = drawn(30, tags=True)
    assert rows.values_of(ACCURACY).shape == (30,)
    assert rows.values_of(ACCURACY).mean() == rows.score(ACCURACY)
    assert rows.values_of(AREA).shape == rows.values_of(AREA_BY).shape == ()
    assert rows.values_of(AREA_BY) == rows.score(AREA_BY)


def test_sums_are_of_whole_groups_alike_in_all_columns():
    values, groups = np.array([[5, 1], [0, 1], [2, 1], [5, 1]]), np.array(["b", "a", "a", "b"])
    sums = resampled_sums(values, groups)
    assert sums.shape == (10_000, 2)
    assert set(sums[:, 0].tolist()) == {4.0, 12.0, 20.0}
    assert set(sums[:, 1].tolist()) == {4.0}
    np.testing.assert_allclose(sums[:, 0].mean(), 12, atol=0.2)
    np.testing.assert_array_equal(resampled_sums(values, groups), sums)
    assert (resampled_sums(values, groups, seed=1) != sums).any()
    assert resampled_sums(values[::-1], groups[::-1], 7).shape == (7, 2)


def test_the_resampled_scores_of_a_mean_are_its_resampled_means():
    tables, groups = [drawn(40), drawn(40, seed=1)], np.arange(40) // 2
    values = np.array([rows.values_of(ACCURACY) for rows in tables])[:, None]
    np.testing.assert_array_equal(resampled_scores(ACCURACY, tables, groups), resampled_means(values, groups))


def test_other_metrics_are_computed_on_the_rows_of_the_drawn_groups_the_same_for_all_tables():
    rows, groups = drawn(9, seed=9), np.array([2, 0, 2, 1, 0, 2, 1, 1, 2])  # of different sizes
    scores = resampled_scores(AREA, [rows, rows], groups)
    assert scores.shape == (1_000, 2)
    np.testing.assert_array_equal(scores[:, 0], scores[:, 1])
    places = [np.flatnonzero(groups == group) for group in range(3)]
    possible = {
        round(rows.take(np.concatenate([places[one] for one in three])).score(AREA), 9)
        for three in product(range(3), repeat=3)
    }
    found = {round(score, 9) for score in scores[:, 0].tolist()}
    assert {one for one in found if one == one} == {one for one in possible if one == one}
    np.testing.assert_array_equal(resampled_scores(AREA, [rows], groups)[:, 0], scores[:, 0])


@pytest.mark.parametrize(("rows_scored", "number"), [(1, 200), (3_000, 300), (10**9, 1_000)])
def test_fewer_resamples_of_many_rows_but_enough_for_an_interval(monkeypatch, rows_scored: int, number: int):
    monkeypatch.setattr(intervals, "ROWS_SCORED", rows_scored)
    assert len(resampled_scores(AREA, [drawn(10)], np.arange(10))) == number


def test_the_interval_of_a_score_is_that_of_its_resamples():
    rows, groups = drawn(60), [f"group {row // 2}" for row in range(60)]
    for metric in (ACCURACY, AREA):
        draws = resampled_scores(metric, [rows], np.array(groups))[:, 0]
        found = score_interval(metric, rows, groups)
        assert found == percentile_interval(draws)
        assert found.low < rows.score(metric) < found.high
    assert percentile_interval(draws) == Interval(*np.quantile(draws, [0.025, 0.975]))
    assert found.low in found
    assert found.high in found


def test_there_is_no_interval_of_one_group_or_without_a_score():
    assert score_interval(ACCURACY, drawn(6), ["same"] * 6) is None
    assert score_interval(ACCURACY, drawn(2), ["one", "two"]) is not None
    assert score_interval(AREA_BY, drawn(6), list("abcdef")) is None
    assert score_interval(AREA, Rows(np.full((4, 2), 0.5), np.ones(4, dtype=int)), list("abcd")) is None


def test_resamples_without_a_score_are_left_out_of_the_interval():
    rows = Rows(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]))
    found = score_interval(AREA, rows, list("abc"))
    assert found == Interval(1.0, 1.0)  # where both classes are drawn


def test_the_error_of_a_difference_of_means_is_that_of_its_rows():
    one, other = drawn(50), drawn(50, seed=1)
    other = Rows(other.probs, one.labels)
    differences = one.values_of(ACCURACY).astype(float) - other.values_of(ACCURACY)
    found, error = paired_difference(ACCURACY, one, other)
    assert found == pytest.approx(one.score(ACCURACY) - other.score(ACCURACY))
    assert error == pytest.approx(np.std(differences, ddof=1) / 50**0.5)


def test_the_error_of_another_difference_is_the_deviation_of_its_resamples():
    one, labels = drawn(80), drawn(80).labels
    other = Rows(drawn(80, seed=1).probs, labels)
    found, error = paired_difference(AREA, one, other)
    draws = resampled_scores(AREA, [one, other], np.arange(80))
    assert found == pytest.approx(one.score(AREA) - other.score(AREA))
    assert error == pytest.approx(np.std(draws[:, 0] - draws[:, 1], ddof=1))
    same, none = paired_difference(AREA, one, one)
    assert (same, none) == (0, 0)


def test_there_is_no_difference_without_a_score():
    one_class = Rows(np.full((4, 2), 0.5), np.ones(4, dtype=int))
    assert paired_difference(AREA, one_class, one_class) is None
    assert paired_difference(AREA_BY, drawn(6), drawn(6)) is None


def test_the_noise_of_seeds_is_pooled_over_variants():
    assert noise_band(np.array([[0.0, 1.0]])) == pytest.approx(t.ppf(0.975, 1))  # variance 1/2, of a difference 1
    assert noise_band(np.array([[0.0, 1.0], [5.0, 8.0]])) == pytest.approx(t.ppf(0.975, 2) * 5**0.5)
    assert noise_band(np.array([[0.0, 1.0]]), level=0.5) == pytest.approx(1)
    assert noise_band(np.array([[0.2, 0.2, 0.2]])) == pytest.approx(0, abs=1e-12)


def test_two_runs_differ_by_less_than_the_noise_band_in_95_percent_of_cases():
    rng = np.random.default_rng(0)
    bands = np.array([noise_band(rng.normal(size=(2, 3))) for _ in range(4_000)])
    assert (np.abs(np.diff(rng.normal(size=(4_000, 2)))[:, 0]) < bands).mean() == pytest.approx(0.95, abs=0.012)
