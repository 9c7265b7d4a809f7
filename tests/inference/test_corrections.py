"""Corrections of zero-shot probabilities: what a model prefers whatever it is asked is taken out, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.inference import ConfidenceGated, Once, RotationAveraged, SwapAveraged
from nexttoken.inference.corrections import BatchMean, ContentFree, Corrected, LabelFitted, OptionPrior
from nexttoken.inference.shifts import Shift, fit_shift
from nexttoken.metrics.probabilities import log_loss
from nexttoken.types import Example, LabelPredictions, Swap

BIAS = np.array([2.0, 0.5, -1.0])  # logits of A, B and tie that this model adds whatever it is asked
BOTH = Swap(classes=(1, 0, 2))
ZERO_SHOT = SimpleNamespace(trainer=SimpleNamespace(max_epochs=0), head={})


@dataclass(frozen=True)
class Pairs:
    """A task of pairs, as the corrections see it."""

    name: str = "pairs"
    classes: tuple[str, ...] = ("a", "b", "tie")
    offers: frozenset[str] = frozenset({"labels", "pairs"})
    swap: Swap | None = BOTH


QUIZ = replace(Pairs(), classes=("A", "B", "C", "D"), offers=frozenset({"labels", "options"}), swap=None)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def pair(number: int, quality: float = 0.0, label: int | None = None) -> Example:
    """Answer A is better than B by `quality`, which is its text."""
    return Example(f"p{number}", {"response_a": (str(quality),), "response_b": (str(-quality),)}, label)


def biased(examples: Sequence[Example]) -> LabelPredictions:
    """A model that reads the first answer's quality, and has a bias; a text that is no number has no quality."""
    qualities = [float(text) if is_number(text := e.fields["response_a"][0]) else 0.0 for e in examples]
    logits = BIAS + np.array([[quality, -quality, 0.0] for quality in qualities])
    return predictions(examples, softmax(logits))


def is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def predictions(examples: Sequence[Example], probs: np.ndarray) -> LabelPredictions:
    return LabelPredictions(tuple(e.id for e in examples), probs, {"seconds": np.ones(len(examples))})


def fitted(correction: Corrected, train: Sequence[Example], answer: Any = biased, task: Any = None) -> Any:
    return correction.around(Once(), ZERO_SHOT).for_task(task or Pairs()).fitted(train, [], answer)


ROWS = [pair(number, quality) for number, quality in enumerate(np.linspace(-2, 2, 9).tolist())]
UNBIASED = softmax(np.array([[float(e.fields["response_a"][0]), -float(e.fields["response_a"][0]), 0] for e in ROWS]))


def test_content_free_prompts_show_the_bias_and_only_it():
    found = fitted(ContentFree(), ROWS)(ROWS, biased)
    assert found.probs == pytest.approx(UNBIASED, abs=1e-12)
    assert found.ids == tuple(e.id for e in ROWS)


def test_batch_calibration_divides_by_the_mean_over_training_rows():
    correction = fitted(BatchMean(), ROWS)
    raw = biased(ROWS).probs
    expected = raw / raw.mean(axis=0)
    assert correction(ROWS, biased).probs == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-12)


def test_the_prior_of_a_pairs_places_leaves_a_tie_as_it_is():
    shifted = fitted(OptionPrior(num_rows=5), ROWS)(ROWS, biased).probs
    middle = np.array([BIAS[:2].mean(), BIAS[:2].mean(), BIAS[2]])
    qualities = np.array([float(e.fields["response_a"][0]) for e in ROWS])
    expected = softmax(middle + np.stack([qualities, -qualities, 0 * qualities], axis=1))
    assert shifted == pytest.approx(expected, abs=1e-9)


def test_the_prior_of_options_is_taken_out_for_each_number_of_options():
    likes = np.array([1.5, 0.0, -0.5, 0.7])

    def answer(examples):
        probs = np.zeros((len(examples), 4))
        for row, example in zip(probs, examples, strict=True):
            number = len(example.fields["options"])
            row[:number] = softmax(likes[:number] + [float(option) for option in example.fields["options"]])
        return predictions(examples, probs)

    rows = [
        Example("1", {"question": ("?",), "options": ("1", "0", "2")}, 2, 3),
        Example("2", {"question": ("?",), "options": ("0", "1", "0", "3")}, 3, 4),
    ]
    found = fitted(OptionPrior(), rows, answer, QUIZ)(rows, answer).probs
    assert found[0] == pytest.approx([*softmax(np.array([1.0, 0, 2])), 0], abs=1e-12)
    assert found[1] == pytest.approx(softmax(np.array([0.0, 1, 0, 3])), abs=1e-12)


def test_no_rows_probabilities_depend_on_the_others():
    correction = fitted(BatchMean(), ROWS)
    together = correction(ROWS, biased).probs
    apart = np.concatenate([correction([row], biased).probs for row in ROWS])
    assert np.array_equal(together, apart)


@given(seed=st.integers(0, 2**20))
def test_a_fit_without_a_use_for_the_answers_is_the_class_prior(seed):
    rng = np.random.default_rng(seed)
    probs = np.repeat(softmax(rng.normal(size=(1, 3))), 40, axis=0)
    labels = np.repeat([0, 1, 2, 0], 10)
    fit = fit_shift(probs, labels, np.full(40, 3), np.repeat([0, 1, 2, 0, 1], 1000))
    assert fit(probs, np.full(40, 3))[0] == pytest.approx([0.4, 0.4, 0.2], abs=0.001), "the shares of all rows"


def test_a_fit_recovers_a_known_temperature_and_bias():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(truth)])
    told = softmax(2.5 * truth + [3.0, 0.0, -1.0])
    sizes = np.full(4000, 3)
    fit = fit_shift(told, labels, sizes, labels)
    assert fit.scales == pytest.approx([1 / 2.5] * 3, abs=0.06)
    assert fit(told, sizes) == pytest.approx(softmax(truth), abs=0.05)
    assert log_loss(fit(told, sizes), labels) < log_loss(told, labels) - 0.5


def test_a_fit_of_both_orders_treats_the_answers_of_a_pair_alike():
    rng = np.random.default_rng(1)
    probs, labels = softmax(rng.normal(size=(50, 3))), rng.integers(0, 3, 50)
    fit = fit_shift(probs, labels, np.full(50, 3), labels, BOTH)
    (a, b, _), (scale_a, scale_b, _) = fit.offsets[3], fit.scales
    assert a == pytest.approx(b, abs=1e-4)
    assert scale_a == pytest.approx(scale_b, abs=1e-4)


def test_a_class_that_is_told_the_wrong_way_round_is_read_the_other_way():
    """Zero-shot, a small model's `tie` is less probable where the answers are equal."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 600)
    told = softmax(np.column_stack([np.zeros((600, 2)), rng.normal(size=600) - (labels == 2)]))
    fit = fit_shift(told, labels, np.full(600, 3), labels)
    assert fit.scales[2] < -0.4
    prior = np.tile(np.bincount(labels) / 600, (600, 1))
    assert log_loss(fit(told, np.full(600, 3)), labels) < log_loss(prior, labels) - 0.05


def test_rows_whose_label_is_impossible_teach_nothing():
    rng = np.random.default_rng(3)
    probs, labels = softmax(rng.normal(size=(20, 3))), rng.integers(0, 3, 20)
    broken, wrong = np.array([[0.5, 0.5, 0.0]] * 4), np.full(4, 2)
    with_them = (np.concatenate([probs, broken]), np.concatenate([labels, wrong]), np.full(24, 3))
    assert fit_shift(*with_them, labels) == fit_shift(probs, labels, np.full(20, 3), labels)
    assert fit_shift(broken, wrong, np.full(4, 3), labels) == Shift()


def test_the_state_of_a_fold_gives_the_same_probabilities_again():
    correction = fitted(BatchMean(), ROWS)
    blank = BatchMean().around(Once(), ZERO_SHOT).for_task(Pairs())
    assert blank.restored(correction.state()) == correction


def test_rows_are_drawn_by_the_seed_and_no_more_than_are_allowed():
    asked: list[str] = []

    def answer(examples):
        asked.extend(e.id for e in examples)
        return biased(examples)

    fitted(BatchMean(num_rows=4), ROWS, answer)
    first = list(asked)
    fitted(BatchMean(num_rows=4), ROWS, answer)
    assert asked == first * 2
    assert len(first) == 4
    with pytest.raises(UserError, match="num_rows"):
        BatchMean(num_rows=0)


def test_options_that_a_model_reads_are_divided_by_their_own_prior_row_by_row():
    """As length-normalised scores of candidates: the same options behind a prompt without content."""

    def answer(examples):
        logits = [
            [len(option) + ("?" in e.fields["question"][0]) * ("right" in option) for option in e.fields["options"]]
            for e in examples
        ]
        return predictions(examples, softmax(np.array(logits, np.float64)))

    rows = [Example("1", {"question": ("what?",), "options": ("a long and wrong one", "right")}, 1, 2)]
    scored = SimpleNamespace(trainer=ZERO_SHOT.trainer, head={"_target_": "nexttoken.engine.heads.Candidates"})
    correction = ContentFree().around(Once(), scored).for_task(replace(QUIZ, classes=("A", "B")))
    found = correction.fitted(rows, [], answer)(rows, answer)
    assert answer(rows).probs[0].argmax() == 0
    assert found.probs[0] == pytest.approx(softmax(np.array([0.0, 1.0])), abs=1e-9)
    assert found.columns["seconds"].tolist() == [4.0]


def test_a_correction_stands_inside_a_gate():
    gated = BatchMean().around(ConfidenceGated(search=None), ZERO_SHOT)
    assert isinstance(gated, ConfidenceGated)
    assert gated.ask == BatchMean()


@pytest.mark.parametrize("ask", [SwapAveraged(), RotationAveraged()])
def test_orders_that_are_averaged_need_no_prior_of_places(ask):
    task = Pairs() if isinstance(ask, SwapAveraged) else QUIZ
    with pytest.raises(UserError, match="one order"):
        OptionPrior().around(ask, ZERO_SHOT).for_task(task)


def test_what_cannot_change_places_and_what_is_learnt_by_heart_are_refused():
    with pytest.raises(UserError, match="options or pairs"):
        fitted(OptionPrior(), ROWS, task=replace(Pairs(), offers=frozenset({"labels"})))
    trained = SimpleNamespace(trainer=SimpleNamespace(max_epochs=1), head={})
    with pytest.raises(UserError, match="by heart"):
        LabelFitted().around(Once(), trained)


def test_classes_that_a_row_cannot_have_stay_at_zero():
    probs = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    shifted = Shift((0.7, 0.7, 0.7), {3: (1.0, 0.0, 5.0)})(probs, np.array([3, 3]))
    assert shifted[0, 2] == 0
    assert shifted.sum(axis=1) == pytest.approx([1, 1])
