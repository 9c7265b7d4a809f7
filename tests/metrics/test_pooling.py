"""Averages of predictors: exact in each space, the good one gets the weight, and noise gains nothing out of fold."""

import numpy as np
import pytest

from nexttoken.metrics.intervals import Rows
from nexttoken.metrics.pooling import SPACES, as_ranks, equal_weights, fit_weights, pool, rank_reference, select_weights
from nexttoken.metrics.probabilities import log_loss
from nexttoken.metrics.rankings import AREA_UNDER_CURVE


def drawn(num_rows: int, seed: int = 0, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(num_classes), num_rows)
    return probs, (rng.random(num_rows)[:, None] > probs.cumsum(axis=1)).sum(axis=1)


def test_averages_are_exact():
    tables = np.array([[[0.8, 0.2], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9]]])
    weights = np.array([0.75, 0.25])
    np.testing.assert_allclose(pool(tables, weights, "probabilities"), [[0.65, 0.35], [0.4, 0.6]])
    odds = np.array([4**0.75 * 0.25**0.25, (1 / 9) ** 0.25])
    np.testing.assert_allclose(pool(tables, weights, "logits")[:, 0], odds / (1 + odds))


@pytest.mark.parametrize("of", SPACES[:2])
def test_absent_options_stay_absent_and_one_predictors_zero_does_not_end_it(of):
    tables = np.array([[[0.6, 0.4, 0.0, 0.0]], [[0.5, 0.0, 0.5, 0.0]]])
    (row,) = pool(tables, equal_weights(2), of)
    assert row[3] == 0
    assert (row[:3] > 0).all()
    assert row.sum() == pytest.approx(1)


@pytest.mark.parametrize("of", SPACES[:2])
def test_a_good_predictor_gets_the_weight_and_a_random_one_none(of):
    true, labels = drawn(2000)
    random, _ = drawn(2000, seed=7)
    weights = fit_weights(np.array([random, true, random[::-1]]), labels, of)
    assert weights[1] == pytest.approx(1, abs=0.05)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("of", SPACES[:2])
def test_the_weights_are_the_lowest_of_a_grid(of):
    (one, labels), (other, _) = drawn(300), drawn(300, seed=3)
    tables = np.array([(one + 1) / 4, (0.3 * one + 0.7 * other + 0.1) / 1.3])
    found = log_loss(pool(tables, fit_weights(tables, labels, of), of), labels)
    shares = np.linspace(0, 1, 101)
    grid = min(log_loss(pool(tables, np.array([share, 1 - share]), of), labels) for share in shares)
    assert grid - 1e-4 < found <= grid + 1e-9


def test_the_gain_of_copies_with_noise_is_not_positive_out_of_fold():
    gains = []
    for seed in range(40):
        true, labels = drawn(120, seed)
        rng = np.random.default_rng(seed)
        noise = np.array([rng.dirichlet(np.ones(3), len(labels)) for _ in range(3)])
        tables = np.array([true, *(0.98 * true + 0.02 * noise)])
        half, pooled = np.arange(len(labels)) % 2 == 0, np.empty_like(true)
        for rows in (half, ~half):
            pooled[~rows] = pool(tables[:, ~rows], fit_weights(tables[:, rows], labels[rows], "logits"), "logits")
        gains.append(log_loss(true, labels) - log_loss(pooled, labels))
    assert np.mean(gains) <= 0


def test_ranks_do_not_depend_on_scale_or_on_other_rows():
    probs, labels = drawn(500, num_classes=2)
    sharp = probs**3 / (probs**3).sum(axis=1, keepdims=True)
    ranks, same = (as_ranks(table, rank_reference(table)) for table in (probs, sharp))
    np.testing.assert_allclose(ranks, same, atol=0.01)
    np.testing.assert_array_equal(as_ranks(probs[:5], rank_reference(probs)), ranks[:5])
    assert AREA_UNDER_CURVE.score(ranks, labels) == pytest.approx(AREA_UNDER_CURVE.score(probs, labels), abs=1e-3)


def test_weights_by_a_metric_find_the_good_predictor():
    true, labels = drawn(600, num_classes=2)
    random, _ = drawn(600, seed=5, num_classes=2)
    tables = np.array([as_ranks(table, rank_reference(table)) for table in (random, true)])
    weights = select_weights(tables, Rows(true, labels), AREA_UNDER_CURVE)
    assert weights[1] > 0.8
    assert weights.sum() == pytest.approx(1)
