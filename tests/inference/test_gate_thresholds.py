"""The gate: its two ends, what it takes, what it is worth against chance, and thresholds that are chosen honestly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nexttoken.data.files import write_json
from nexttoken.errors import UserError
from nexttoken.inference.gate import ABOVE, Decision, Gate, Trial, at_random, decide, decide_by_part, difference, score
from nexttoken.inference.gate_thresholds import choose_thresholds, cross_chosen, fit_gate, gates_over, group_parts
from nexttoken.runs.records import read_gate

NEVER, ALWAYS = Gate(0, 0), Gate(ABOVE, 0)


def trial(num_rows: int = 300, seed: int = 0, known: float = 0.5, helpful: float = 0.9, num_folds: int = 5) -> Trial:
    """Four options, every third question only three; half the questions are known, most others need a passage."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_rows)
    is_known = rng.random(num_rows) < known

    def answer(strength: np.ndarray) -> np.ndarray:
        logits = rng.normal(size=(num_rows, 4))
        logits[np.arange(num_rows), labels] += strength
        weights = np.exp(1.5 * logits)
        weights[::3, 3] = 0.0
        return weights / weights.sum(axis=1, keepdims=True)

    first = answer(np.where(is_known, 4.0, 0.0))
    second = answer(np.where(rng.random(num_rows) < helpful, 4.0, 0.0))
    seconds = rng.random((3, num_rows))
    rows = np.arange(num_rows)
    ids = tuple(f"q{row}" for row in rows)
    return Trial(
        ids,
        rows % num_folds,
        rows // 2,
        labels,
        first,
        second,
        rng.random(num_rows) < 0.9,
        *seconds,
        *np.ones((2, num_rows)),
    )


probabilities = arrays(np.float64, (6, 5), elements=st.floats(1e-6, 1)).map(lambda a: a / a.sum(axis=1, keepdims=True))


@given(probabilities, st.floats(0.1, 10), st.booleans())
def test_threshold_zero_never_asks_again_and_above_one_always_does(probs, temperature, absent):
    if absent:
        probs = np.pad(probs, ((0, 0), (0, 3)))
    assert not Gate(0, 0, temperature).unsure(probs).any()
    assert Gate(np.nextafter(1, 2), 0, temperature).unsure(probs).all()
    assert Gate(0, np.nextafter(1, 2), temperature).unsure(probs).all()


@given(probabilities, st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3))
def test_higher_thresholds_ask_no_fewer(probs, top1, margin, more):
    low, high = Gate(top1, margin).unsure(probs), Gate(top1 + more, margin + more).unsure(probs)
    assert (high | ~low).all()


def test_either_threshold_alone_makes_a_row_unsure():
    probs = np.array([[0.5, 0.1, 0.4], [0.45, 0.275, 0.275], [0.8, 0.2, 0.0], [1.0, 0.0, 0.0]])
    assert Gate(0.48, 0).unsure(probs).tolist() == [False, True, False, False]
    assert Gate(0, 0.15).unsure(probs).tolist() == [True, False, False, False]
    assert Gate(0.48, 0.15).unsure(probs).tolist() == [True, True, False, False]
    assert Gate(0.75, 0, temperature=2).unsure(probs).tolist() == [True, True, True, False], "0.8 is 2/3 when softened"
    assert Gate(0.6, 0.6).unsure(np.ones((2, 1))).tolist() == [False, False], "one option is certain"


def test_a_less_sure_second_answer_is_taken_only_where_confidence_does_not_count():
    first, second = np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([[0.45, 0.55], [0.3, 0.7]])
    assert ALWAYS.choose(first, second).tolist() == [False, True]
    assert replace(ALWAYS, keep_confident=False).choose(first, second).tolist() == [True, True]
    assert ALWAYS.choose(first, first).all()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"min_top1": -0.1}, r"inference.min_top1=-0.1 is not accepted: expected 0 \(never"),
        ({"min_margin": float("nan")}, "inference.min_margin=nan"),
        ({"temperature": 0.0}, "inference.temperature=0.0 is not accepted"),
    ],
)
def test_impossible_gates_are_refused(changed, line):
    with pytest.raises(UserError, match=line):
        replace(NEVER, **changed)


def test_scores_are_those_of_the_answers_taken():
    first, second = np.array([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45]]), np.array([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]])
    times = np.array([1.0, 1.0, 1.0]), np.array([10.0, 20.0, 30.0]), np.array([100.0, 200.0, 300.0])
    found, labels, rows = np.array([True, True, False]), np.array([0, 1, 1]), np.arange(3)
    tokens = np.array([[10, 10, 10], [20, 30, 0]])
    asked = Trial(("a", "b", "c"), rows, rows, labels, first, second, found, *times, *tokens)
    decision = decide(asked, Gate(0.7, 0))
    assert decision.searched.tolist() == [False, True, True]
    assert decision.taken.tolist() == [False, True, False], "nothing was found for c"
    outcome = score(asked, decision)
    assert outcome.accuracy == pytest.approx(2 / 3)
    assert outcome.log_loss == pytest.approx(-np.log([0.9, 0.9, 0.45]).mean())
    assert outcome.share_searched == pytest.approx(2 / 3)
    assert outcome.seconds == pytest.approx(1 + (20 + 200 + 30) / 3), "a search without a hit costs the search alone"
    assert outcome.tokens == 10 + 30 / 3
    assert difference(asked, decision, decide(asked, NEVER)) == pytest.approx((1 / 3, 1 / 3))
    gains = replace(asked, by_loss=True).gains
    np.testing.assert_allclose(gains, np.log([0.5 / 0.9, 0.9 / 0.4, 0.8 / 0.45]))


def test_by_log_loss_a_gate_asks_again_where_that_gains_most():
    """Answers of which the unsure ones alone improve: accuracy sees nothing, log loss does."""
    rng, rows = np.random.default_rng(0), np.arange(400)
    sure = rows % 2 == 0
    best = np.where(sure, 0.9, 0.55)
    first = np.column_stack([best, 1 - best]) + rng.uniform(0, 1e-3, (400, 1)) * [1, -1]
    second = np.where(sure[:, None], first, [0.7, 0.3])
    costs = np.ones((5, 400))
    asked = Trial(
        tuple(map(str, rows)), rows % 2, rows, 0 * rows, first, second, np.ones(400, dtype=bool), *costs, by_loss=True
    )
    chosen = fit_gate(asked, keep_confident=False, max_share=0.6)
    np.testing.assert_array_equal(chosen.unsure(first), ~sure)
    assert not fit_gate(replace(asked, by_loss=False), keep_confident=False).unsure(first).any()


def test_random_gating_is_the_mean_over_many_draws():
    asked, rng = trial(200), np.random.default_rng(1)
    takes = ALWAYS.choose(asked.first, asked.second) & asked.found
    draws = [rng.permutation(200) < 60 for _ in range(4000)]
    scores = [score(asked, Decision(draw, draw & takes)) for draw in draws]
    expected = at_random(asked, NEVER, 0.3)
    for name in ("accuracy", "log_loss", "share_searched", "seconds"):
        values = [getattr(one, name) for one in scores]
        assert getattr(expected, name) == pytest.approx(np.mean(values), abs=4 * np.std(values) / 4000**0.5 + 1e-12)


@pytest.mark.parametrize("threshold", ["min_top1", "min_margin"])
def test_a_curve_goes_from_never_to_always_and_beats_chance(threshold):
    asked = trial(2000)
    gates = gates_over(asked, NEVER, (threshold,))
    outcomes = [score(asked, decide(asked, gate)) for gate in gates]
    assert [gate.min_top1 + gate.min_margin for gate in gates] == sorted(getattr(gate, threshold) for gate in gates)
    shares = [outcome.share_searched for outcome in outcomes]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert max(np.diff(shares)) < 0.06, "the grid follows the confidences"
    assert outcomes[0] == score(asked, decide(asked, NEVER))
    for outcome in outcomes[5:15]:
        assert outcome.accuracy > at_random(asked, NEVER, outcome.share_searched).accuracy + 0.02


@pytest.mark.parametrize("max_share", [0.0, 0.1, 0.5, 1.0])
def test_chosen_thresholds_search_no_more_than_allowed_and_none_is_better(max_share):
    asked = trial()
    gate = choose_thresholds(asked, NEVER, max_share, tolerance=0)
    outcome = score(asked, decide(asked, gate))
    assert outcome.share_searched <= max_share
    outcomes = [score(asked, decide(asked, one)) for one in gates_over(asked, NEVER)]
    allowed = [one for one in outcomes if one.share_searched <= max_share]
    assert outcome.accuracy == max(one.accuracy for one in allowed)
    equals = [one.share_searched for one in allowed if one.accuracy == outcome.accuracy]
    assert outcome.share_searched == min(equals)


def test_tolerance_saves_searches_and_costs_no_more_than_it_says():
    asked = trial(200, seed=4)
    gates = [choose_thresholds(asked, NEVER, 1.0, tolerance) for tolerance in (0, 1, 2, float("inf"))]
    decisions = [decide(asked, gate) for gate in gates]
    shares = [decision.searched.mean() for decision in decisions]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] < shares[0]
    assert gates[3] == NEVER
    behind, error = difference(asked, decisions[0], decisions[1])
    assert behind <= error


def test_useless_passages_are_not_searched_for():
    asked = trial(400, helpful=0.0)
    assert choose_thresholds(asked, replace(NEVER, keep_confident=False), 0.5, 1.0).unsure(asked.first).mean() < 0.1


def test_a_gate_reaches_what_always_reaches_with_half_the_searches():
    asked = trial(1000, known=0.6)
    outcome = score(asked, cross_chosen(asked, keep_confident=False).decision)
    always = score(asked, decide(asked, replace(ALWAYS, keep_confident=False)))
    never = score(asked, decide(asked, NEVER))
    assert outcome.accuracy > always.accuracy - 0.005
    assert outcome.accuracy > never.accuracy + 0.1
    assert outcome.share_searched < 0.53


def test_each_fold_is_decided_by_the_others_alone():
    asked = trial()
    chosen = cross_chosen(asked)
    assert (chosen.parts, set(chosen.gates)) == ("folds", set(range(5)))
    assert chosen.gates[2] == fit_gate(asked.pick(asked.folds != 2))
    relabelled = replace(asked, labels=np.where(asked.folds == 2, (asked.labels + 1) % 3, asked.labels))
    own = asked.folds == 2
    again = cross_chosen(relabelled)
    assert again.gates[2] == chosen.gates[2], "a fold's own labels may not move its thresholds"
    assert (again.decision.searched[own] == chosen.decision.searched[own]).all()
    assert again.gates[1] != chosen.gates[1]


def test_a_single_fold_is_parted_by_groups():
    asked = trial(num_folds=1)
    chosen = cross_chosen(asked)
    assert (chosen.parts, len(chosen.gates)) == ("parts of one fold", 5)
    assert cross_chosen(asked).decision.searched.tolist() == chosen.decision.searched.tolist(), "the same every time"
    with pytest.raises(UserError, match="are one group, so thresholds cannot be chosen on others"):
        cross_chosen(replace(asked, groups=np.zeros_like(asked.groups)))


def test_groups_are_never_split_between_parts():
    groups = np.random.default_rng(0).integers(0, 40, 200) * 7
    parts = group_parts(groups)
    assert all(len(set(parts[groups == group])) == 1 for group in groups)
    assert set(parts.tolist()) == set(range(5))
    assert set(group_parts(np.array([3, 9, 3])).tolist()) == {0, 1}


def test_parts_are_decided_by_their_own_gates():
    asked = trial()
    decision = decide_by_part(asked, asked.folds, {fold: ALWAYS if fold == 1 else NEVER for fold in range(5)})
    assert (decision.searched == (asked.folds == 1)).all()


def test_a_gate_is_read_back_from_its_file(tmp_path):
    gate = Gate(0.61, 0.2, 1.7, keep_confident=False)
    saved = {"min_top1": 0.61, "min_margin": 0.2, "temperature": 1.7, "keep_confident": False, "outcomes": {}}
    write_json(saved, tmp_path / "gate.json")
    assert read_gate(tmp_path / "gate.json") == gate
    write_json({**saved, "min_margin": "0.2"}, tmp_path / "gate.json")
    with pytest.raises(
        UserError, match=r"gate.json has no number min_margin; write it again: python -m nexttoken gate"
    ):
        read_gate(tmp_path / "gate.json")
