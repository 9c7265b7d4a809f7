"""The cascade by itself: order, ends, and answers that do not depend on other rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nexttoken.errors import UserError
from nexttoken.inference.cascade import Cascade, certainty, threshold_of
from nexttoken.inference.gate import ABOVE
from nexttoken.metrics.pooling import pool

HALF = (0.5, 0.5)

probabilities = arrays(np.float64, (8, 3), elements=st.floats(1e-4, 1)).map(lambda a: a / a.sum(axis=1, keepdims=True))


@given(probabilities, st.floats(0, 1))
def test_the_rows_that_go_on_are_the_first_of_the_order(probs, share):
    cascade = Cascade(threshold_of(certainty(probs), share), HALF)
    unsure, order = cascade.unsure(probs), cascade.order(probs)
    number = int(unsure.sum())
    assert sorted(order[:number]) == np.flatnonzero(unsure).tolist()
    assert (np.diff(certainty(probs)[order]) >= 0).all()
    assert number <= round(share * len(probs))
    if len(np.unique(certainty(probs))) == len(probs):
        assert number == round(share * len(probs))


def test_the_order_is_by_the_best_class_and_keeps_that_of_equals():
    probs = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.0, 0.2, 0.8]])
    assert Cascade(0.5, HALF).order(probs).tolist() == [1, 2, 3, 0]
    assert Cascade(0.5, HALF).unsure(probs).tolist() == [False, True, True, False]
    assert not Cascade(0.0, HALF).unsure(probs).any()
    assert Cascade(ABOVE, HALF).unsure(np.array([[1.0, 0.0, 0.0]])).all()


@given(probabilities, probabilities, st.permutations(range(8)), st.floats(0, 1))
def test_a_rows_answer_does_not_depend_on_other_rows(small, larger, order, weight):
    cascade = Cascade(0.5, (1 - weight, weight))
    np.testing.assert_array_equal(cascade.unsure(small)[order], cascade.unsure(small[order]))
    np.testing.assert_array_equal(cascade.combine(small, larger)[order], cascade.combine(small[order], larger[order]))
    np.testing.assert_allclose(cascade.combine(small, larger)[:1], cascade.combine(small[:1], larger[:1]), atol=1e-12)


@given(probabilities, probabilities)
def test_the_weight_leads_from_one_run_to_the_other(small, larger):
    np.testing.assert_allclose(Cascade(1, (1.0, 0.0)).combine(small, larger), small, atol=1e-9)
    np.testing.assert_allclose(Cascade(1, (0.0, 1.0)).combine(small, larger), larger, atol=1e-9)
    expected = pool(np.array([small, larger]), np.array([0.7, 0.3]), "logits")
    np.testing.assert_array_equal(Cascade(1, (0.7, 0.3)).combine(small, larger), expected)


def test_impossible_options_stay_at_zero():
    small, larger = np.array([[0.6, 0.4, 0.0]]), np.array([[0.2, 0.8, 0.0]])
    assert Cascade(1, HALF).combine(small, larger)[0, 2] == 0


@pytest.mark.parametrize(
    ("threshold", "weights"),
    [(-0.1, HALF), (1.5, HALF), (0.5, (-0.1, 1.1)), (0.5, (0.5, 0.6)), (0.5, (0.5, float("nan")))],
)
def test_values_out_of_range_are_refused(threshold, weights):
    with pytest.raises(UserError, match="make no cascade: expected 0 to"):
        Cascade(threshold, weights)
