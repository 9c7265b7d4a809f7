import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from nexttoken.errors import UserError
from nexttoken.metrics import probabilities as metrics
from nexttoken.metrics.rankings import chance_map, chance_reciprocal_rank


def _random(seed: int, num_examples: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(num_classes, 0.3), num_examples), rng.integers(0, num_classes, num_examples)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_scores_equal_scikit_learn(seed: int, num_examples: int, num_classes: int) -> None:
    probs, labels = _random(seed, num_examples, num_classes)
    expected = reference.log_loss(labels, probs, labels=range(num_classes))
    assert metrics.log_loss(probs, labels) == pytest.approx(expected, rel=1e-12)
    assert metrics.accuracy(probs, labels) == reference.accuracy_score(labels, probs.argmax(axis=1))


def test_log_loss_of_certain_answers_is_clipped_like_scikit_learn() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    labels = np.array([0, 0])
    expected = reference.log_loss(labels, probs, labels=range(3))
    assert metrics.log_loss(probs, labels) == pytest.approx(expected, rel=1e-12)
    assert 18 < metrics.log_loss(probs, labels) < 19  # (0 + 36.04) / 2: finite, and far from forgiven


@pytest.mark.parametrize("bad", [[np.nan, 0.5, 0.5], [1.2, -0.2, 0.0], [0.5, 0.5, 0.1], [np.inf, 0.0, 0.0]])
def test_rows_that_are_not_probabilities_are_named(bad: list[float]) -> None:
    probs = np.array([[0.2, 0.3, 0.5]] + [bad] * 7)
    with pytest.raises(UserError, match=r"7 rows .*rows 1, 2, 3, 4, 5 and 2 more;"):
        metrics.log_loss(probs, np.zeros(8, dtype=int))


def test_labels_outside_the_classes_and_wrong_shapes_are_refused() -> None:
    probs = np.full((3, 2), 0.5)
    with pytest.raises(UserError, match="labels of 1 rows are not one of 0 to 1: rows 2"):
        metrics.log_loss(probs, np.array([0, 1, 2]))
    with pytest.raises(UserError, match="do not fit labels"):
        metrics.accuracy(probs, np.array([0, 1]))
    with pytest.raises(UserError, match="N > 0"):
        metrics.log_loss(np.empty((0, 3)), np.empty(0, dtype=int))


def test_reference_losses() -> None:
    assert metrics.uniform_log_loss(3) == pytest.approx(1.0986, abs=1e-4)
    # counts 2, 1, 0 add one: 3/6, 2/6, 1/6; the class never seen is punished, not infinite
    prior = metrics.prior_probs(np.array([0, 0, 1]), 3, [3, 3])
    assert prior == pytest.approx(np.array([[3, 2, 1], [3, 2, 1]]) / 6)


def test_reliability_bins_by_hand() -> None:
    probs = np.array([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [1.0, 0.0]])
    bins = metrics.reliability(probs, np.array([0, 1, 1, 0]), num_bins=10)
    assert [b.count for b in bins] == [1, 3]
    assert bins[0] == metrics.ReliabilityBin(confidence=0.6, accuracy=1.0, count=1)
    assert bins[1].confidence == pytest.approx((0.95 + 0.91 + 1.0) / 3)
    assert bins[1].accuracy == pytest.approx(2 / 3)
    expected = (1 * 0.4 + 3 * abs(2 / 3 - 2.86 / 3)) / 4
    assert metrics.expected_calibration_error(probs, np.array([0, 1, 1, 0])) == pytest.approx(expected)


def test_labels_drawn_from_the_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 20_000)
    labels = (rng.random((20_000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    assert metrics.expected_calibration_error(probs, labels) < 0.02
    assert metrics.expected_calibration_error(probs, (labels + 1) % 3) > 0.2


def test_mean_and_spread() -> None:
    assert metrics.mean_and_spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    mean, spread = metrics.mean_and_spread([0.9])
    assert mean == 0.9
    assert np.isnan(spread)


def test_every_metric_prefers_the_truth_in_its_declared_direction() -> None:
    probs, labels = _random(1, 50, 3)
    for metric in metrics.METRICS:
        gain = metric.score(np.eye(3)[labels], labels) - metric.score(probs, labels)
        assert (gain > 0) == metric.higher_is_better, metric.name


# Questions with options


def test_chance_follows_each_rows_own_options() -> None:
    options = np.array([2, 4, 5])
    assert metrics.uniform_log_loss(options) == pytest.approx(np.log([2, 4, 5]).mean())
    assert metrics.chance_accuracy(options) == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)
    assert metrics.chance_accuracy(3) == pytest.approx(1 / 3)
    probs = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]) / options[:, None]
    assert metrics.log_loss(probs, np.array([1, 3, 4])) == pytest.approx(metrics.uniform_log_loss(options))


@pytest.mark.parametrize("options", [[], [2, 0], [3, np.nan]])
def test_rows_without_options_have_no_chance_level(options: list[float]) -> None:
    for reference_score in (metrics.chance_accuracy, metrics.uniform_log_loss, chance_map, chance_reciprocal_rank):
        with pytest.raises(UserError, match="expected at least one row, and at least 1 option"):
            reference_score(options)


def test_the_prior_leaves_out_absent_options() -> None:
    seen, labels = np.array([0, 0, 1]), np.array([0, 2])
    # smoothed counts 3, 2, 1: a row of two options shares 3 : 2, a row of three 3 : 2 : 1
    expected = np.array([[3 / 5, 2 / 5, 0], [3 / 6, 2 / 6, 1 / 6]])
    assert metrics.prior_probs(seen, 3, [2, 3]) == pytest.approx(expected)
    unseen = metrics.prior_probs(np.array([]), 3, [2, 3])
    assert metrics.log_loss(unseen, labels) == pytest.approx(metrics.uniform_log_loss([2, 3]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_the_brier_score_equals_scikit_learns(seed: int, num_examples: int, num_classes: int) -> None:
    probs, labels = _random(seed, num_examples, num_classes)
    if num_classes == 2:
        expected = reference.brier_score_loss(labels, probs[:, 1], pos_label=1)
    else:
        expected = ((probs - np.eye(num_classes)[labels]) ** 2).sum(axis=1).mean()
    assert metrics.BRIER_SCORE.score(probs, labels) == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_chance_of_the_brier_score_is_that_of_equal_probabilities(num_classes: int) -> None:
    probs = np.full((5, num_classes), 1 / num_classes)
    chance = metrics.BRIER_SCORE.chance_level([num_classes] * 5)
    assert metrics.BRIER_SCORE.score(probs, np.arange(5) % num_classes) == pytest.approx(chance)
