"""Scaling: known distortions are undone, pairs stay symmetric, absent options stay absent, noise gains nothing."""

import numpy as np
import pytest

from nexttoken.metrics.probabilities import log_loss
from nexttoken.metrics.scaling import (
    METHODS,
    Scaling,
    choose_scaling,
    cross_scaled,
    fit_scaling,
    fit_temperature,
    methods_for,
    soften,
)

SWAP = (1, 0, 2)


def drawn(num_rows: int, seed: int = 0, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities (N, K) and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(num_classes), num_rows)
    return probs, (rng.random(num_rows)[:, None] > probs.cumsum(axis=1)).sum(axis=1)


def test_temperature_scaling_is_that_of_the_gate():
    true, labels = drawn(4000)
    sharp = soften(true, 0.5)
    scaling = fit_scaling("temperature", sharp, labels)
    assert scaling.weights[0, 0] == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(scaling(sharp), soften(sharp, fit_temperature(sharp, labels)), atol=1e-9)


@pytest.mark.parametrize(
    ("method", "weights", "offsets"),
    [
        ("temperature", np.eye(3) * 2, (0, 0, 0)),
        ("vector", np.diag([1, 1.5, 0.7]), (0.5, -0.3, 0)),
        ("matrix", [[1, 0.5, 0], [-0.4, 1, 0.3], [0.6, 0, 1]], (0.3, 0, -0.3)),
    ],
)
def test_the_method_that_undoes_a_distortion_is_chosen_and_undoes_it(method, weights, offsets):
    true, labels = drawn(1500)
    distorted = Scaling("matrix", np.array(weights), np.array(offsets))(true)
    parts = np.arange(len(labels)) % 5
    chosen = choose_scaling(distorted, labels, parts)
    assert chosen.method == method
    fresh, fresh_labels = drawn(3000, seed=1)
    again = chosen(Scaling("matrix", np.array(weights), np.array(offsets))(fresh))
    assert log_loss(again, fresh_labels) == pytest.approx(log_loss(fresh, fresh_labels), abs=0.006)


def test_calibrated_probabilities_of_true_ones_gain_nothing():
    gains = []
    for seed in range(6):
        true, labels = drawn(90, seed)
        parts = np.arange(len(labels)) % 3
        scaled = np.array(true)
        for part in range(3):
            rows = parts != part
            scaled[~rows] = choose_scaling(true[rows], labels[rows], np.arange(rows.sum()) % 5)(true[~rows])
        gains.append(log_loss(true, labels) - log_loss(scaled, labels))
    assert np.mean(gains) <= 0


@pytest.mark.parametrize("method", METHODS)
def test_a_pairs_answers_are_treated_alike(method):
    probs, labels = drawn(300)
    scaling = fit_scaling(method, probs, labels, SWAP)
    turned = scaling(probs[:, SWAP])[:, SWAP]
    np.testing.assert_allclose(scaling(probs), turned, atol=1e-5)
    assert log_loss(fit_scaling("vector", probs, labels)(probs), labels) <= log_loss(scaling(probs), labels) + 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_absent_options_stay_absent_and_rows_sum_to_1(method):
    probs, labels = drawn(200, num_classes=4)
    probs[::3, -1] = 0
    probs[::3] /= probs[::3].sum(axis=1, keepdims=True)
    labels[::3] %= 3
    labels[0], probs[0] = 3, [0.2, 0.3, 0.5, 0.0]  # a row whose label has no probability
    scaled = fit_scaling(method, probs, labels)(probs)
    assert (scaled[::3, -1] == 0).all()
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    assert np.isfinite(scaled).all()


def test_each_part_is_scaled_by_the_others():
    probs, labels = drawn(200)
    parts = np.arange(200) % 2
    scaled = cross_scaled("vector", probs, labels, parts)
    np.testing.assert_array_equal(
        scaled[::2], fit_scaling("vector", probs[1::2], labels[1::2])(probs[::2]), strict=True
    )


def test_a_matrix_of_many_classes_is_not_tried():
    assert methods_for(3) == METHODS
    assert methods_for(77) == ("none", "temperature", "vector")


def test_a_scaling_is_the_same_after_a_file():
    probs, labels = drawn(200)
    scaling = fit_scaling("matrix", probs, labels)
    np.testing.assert_array_equal(Scaling.of(scaling.values, 3)(probs), scaling(probs))
    with pytest.raises(ValueError, match="shapes"):
        Scaling.of(scaling.values, 4)
    with pytest.raises(ValueError, match="finite"):
        Scaling.of({**scaling.values, "offsets": [0, 0, float("nan")]}, 3)
