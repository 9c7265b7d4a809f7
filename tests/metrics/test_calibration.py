"""Temperature scaling: it finds a known temperature, keeps the answer, and stays sane on few or flawless rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.metrics.probabilities import expected_calibration_error, log_loss
from nexttoken.metrics.scaling import HIGHEST, LOWEST, fit_temperature, soften


def drawn(num_rows: int, seed: int = 0, num_options: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, some rows with an absent last option, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(num_options), num_rows)
    probs[::3, -1] = 0.0
    probs /= probs.sum(axis=1, keepdims=True)
    return probs, np.array([rng.choice(num_options, p=row) for row in probs])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    true, labels = drawn(8000)
    distorted = soften(true, 1 / temperature)
    fitted = fit_temperature(distorted, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert log_loss(soften(distorted, fitted), labels) <= log_loss(true, labels)
    assert expected_calibration_error(soften(distorted, fitted), labels) < 0.02


def test_the_fit_is_the_minimum_of_the_log_loss_with_its_prior():
    probs, labels = drawn(40, seed=3)
    fitted = fit_temperature(probs, labels)

    def objective(temperature: float) -> float:
        return len(labels) * log_loss(soften(probs, temperature), labels) + np.log(temperature) ** 2 / 2

    assert all(objective(fitted) <= objective(other) for other in np.geomspace(LOWEST, HIGHEST, 500))


@given(st.floats(LOWEST, HIGHEST), st.integers(0, 50))
def test_softening_keeps_the_best_option_and_the_zeros(temperature, seed):
    probs, _ = drawn(30, seed)
    softened = soften(probs, temperature)
    assert (softened.argmax(axis=1) == probs.argmax(axis=1)).all()
    assert (softened[::3, -1] == 0).all()
    assert np.abs(softened.sum(axis=1) - 1).max() < 1e-12


def test_softening_by_one_changes_nothing_and_by_more_flattens():
    probs, _ = drawn(20)
    assert soften(probs, 1.0) is probs
    assert (soften(probs, 3.0).max(axis=1) < probs.max(axis=1)).all()
    assert soften(np.array([[0.0, 1.0, 0.0]]), 5.0).tolist() == [[0, 1, 0]], "a question of one option"


def test_no_rows_and_hopeless_rows_say_nothing():
    assert fit_temperature(np.empty((0, 4)), np.empty(0)) == pytest.approx(1, abs=1e-6)
    assert fit_temperature(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(1, abs=1e-6)


def test_rows_that_are_all_right_move_it_no_further_than_their_number_justifies():
    few, many = (fit_temperature(np.tile([0.7, 0.2, 0.1], (rows, 1)), np.zeros(rows, int)) for rows in (3, 3000))
    assert LOWEST <= many < few < 1
    assert few > 0.4


def test_rows_that_are_all_wrong_stay_within_bounds():
    fitted = fit_temperature(np.tile([0.98, 0.01, 0.01], (3000, 1)), np.ones(3000, int))
    assert 1 < fitted <= HIGHEST
