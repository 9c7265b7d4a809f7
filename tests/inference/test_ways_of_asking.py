"""Ways of asking, on an answerer that knows options by their texts: orders, passages, the gate, and rows to show."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.inference import (
    AdaptiveSwap,
    ConfidenceGated,
    FewShot,
    Once,
    RotationAveraged,
    SwapAveraged,
    WithPassages,
)
from nexttoken.inference.retrieval.search import AddPassages, Search
from nexttoken.transforms.demonstrations import AddDemonstrations, show_similar
from nexttoken.transforms.orders import ShuffleOptions, reorder
from nexttoken.types import Example, LabelPredictions, Passage

NUM_CLASSES = 5


def question(number: int, num_options: int = 3, label: int | None = 0, text: str = "") -> Example:
    options = tuple(f"option {number} {place}" for place in range(num_options))
    return Example(f"q{number}", {"question": (text or f"question {number}",), "options": options}, label, num_options)


class Places:
    """Likes each place and each option's text in its own way; a passage that names an option settles it."""

    def __init__(self, likes_places: float = 1.0, knows: float = 3.0) -> None:
        self.likes_places, self.knows, self.asked = likes_places, knows, []

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        self.asked.append(list(examples))
        probs = np.zeros((len(examples), NUM_CLASSES))
        for row, example in enumerate(examples):
            options, passages = example.fields["options"], "".join(example.fields.get("passages", ()))
            scores = [
                len(set(option)) * 0.1 + self.likes_places * place + 10 * (option in passages)
                for place, option in enumerate(options)
            ]
            scores[0] += self.knows * ("known" in example.fields["question"][0])
            probs[row, : len(options)] = np.exp(scores) / np.exp(scores).sum()
        return LabelPredictions(tuple(e.id for e in examples), probs, {"seconds": np.ones(len(examples))})


class Library:
    """Finds the passage that names option 1 of every question that it knows."""

    def __init__(self, silent: Sequence[str] = ()) -> None:
        self.silent, self.queries = silent, []

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        self.queries += queries
        return [
            [] if any(word in query for word in self.silent) else [Passage(f"it is option {query.split()[-1]} 1")]
            for query in queries
        ]


@given(st.permutations(range(4)), st.integers(0, 3))
def test_reordering_moves_the_label_with_its_option(order, label):
    example = question(1, 4, label)
    other = reorder(example, order)
    assert other.fields["options"][other.label] == example.fields["options"][label]
    back = reorder(other, [list(order).index(place) for place in range(4)])
    assert back == example


def test_shuffled_orders_take_turns_and_depend_on_the_row_alone():
    rows = [question(number, 5, number % 5) for number in range(20)]
    shuffled = ShuffleOptions(num_orders=3, seed=1)(rows)
    assert [(row.id, row.round) for row in shuffled] == [(row.id, turn) for row in rows for turn in range(3)]
    assert ShuffleOptions(num_orders=3, seed=1)(rows[7:8]) == shuffled[21:24]
    assert ShuffleOptions(num_orders=3, seed=2)(rows) != shuffled
    right = {row.id: row.fields["options"][row.label] for row in rows}
    assert all(row.fields["options"][row.label] == right[row.id] for row in shuffled)
    assert len({row.label for row in shuffled}) == 5


def test_averaged_over_all_rotations_no_place_matters():
    rows = [question(1, 2), question(2, 5), question(3, 3)]
    answer = Places(likes_places=2.0)
    averaged = RotationAveraged()(rows, answer)
    assert averaged.ids == ("q1", "q2", "q3")
    assert sum(map(len, answer.asked)) == 2 + 5 + 3
    np.testing.assert_allclose(averaged.probs.sum(axis=1), 1)
    for row, size in enumerate((2, 5, 3)):
        np.testing.assert_allclose(averaged.probs[row, :size], 1 / size, atol=0.02)  # the options' texts are alike
        assert (averaged.probs[row, size:] == 0).all()
    np.testing.assert_array_equal(averaged.columns["seconds"], [2, 5, 3])


def test_one_rotation_is_asking_once():
    rows = [question(1, 2), question(2, 5)]
    np.testing.assert_array_equal(RotationAveraged(1)(rows, Places()).probs, Once()(rows, Places()).probs)


def gate(library: Library, **options: object) -> ConfidenceGated:
    return ConfidenceGated(Search(library), **{"min_top1": 0.9, "min_margin": 0.0, **options})


ROWS = [question(number, 3, 1, f"{'known' if number % 2 else 'hard'} {number}") for number in range(6)]


def test_only_unsure_questions_are_searched_and_asked_again():
    library, answer = Library(), Places(likes_places=0.0, knows=9.0)
    predictions = gate(library)(ROWS, answer)
    assert library.queries == ["hard 0", "hard 2", "hard 4"]
    assert [len(asked) for asked in answer.asked] == [6, 3]
    np.testing.assert_array_equal(predictions.probs.argmax(axis=1), [1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(predictions.columns["searched"], [1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(predictions.columns["second_taken"], [1, 0, 1, 0, 1, 0])
    assert (predictions.columns["seconds"][::2] >= 2).all()
    assert (predictions.columns["seconds"][1::2] == 1).all()


@pytest.mark.parametrize(("threshold", "searched"), [(0.0, 0), (1.01, 6)])
def test_threshold_0_never_asks_again_and_above_1_always_does(threshold, searched):
    library = Library()
    predictions = gate(library, min_top1=threshold)(ROWS, Places(knows=9.0))
    assert predictions.columns["searched"].sum() == len(library.queries) == searched


def test_without_a_hit_the_first_answer_stands():
    answer = Places(likes_places=0.0, knows=9.0)
    predictions = gate(Library(silent=["hard 2"]))(ROWS, answer)
    np.testing.assert_array_equal(predictions.columns["found"], [1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(predictions.probs[2], Once()(ROWS, answer).probs[2])
    dead = gate(Library(silent=["hard"]))(ROWS, answer)
    np.testing.assert_array_equal(dead.probs, Once()(ROWS, answer).probs)


def test_passages_that_make_the_model_less_sure_are_not_believed():
    class Confusing(Places):
        def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
            predictions = super().__call__(examples)
            flat = np.array([bool(e.fields.get("passages")) for e in examples])
            predictions.probs[flat, :3] = [0.33, 0.34, 0.33]
            return predictions

    first = Once()(ROWS, Confusing(likes_places=0.5)).probs
    kept = gate(Library())(ROWS, Confusing(likes_places=0.5))
    np.testing.assert_array_equal(kept.probs, first)
    assert not kept.columns["second_taken"].any()
    believed = gate(Library(), keep_confident=False)(ROWS, Confusing(likes_places=0.5))
    assert (believed.probs[::2].argmax(axis=1) == 1).all()


def test_the_gate_is_calibrated_on_the_dev_rows_and_remembers():
    too_sure = Places(likes_places=0.0, knows=6.0)
    dev = [question(n, 2, int(n % 4 == 0), f"known {n}") for n in range(40)]  # wrong every fourth time
    fitted = gate(Library()).fitted([], dev, too_sure)
    assert fitted.temperature > 1.5
    assert gate(Library()).restored(fitted.state()).temperature == fitted.temperature
    assert gate(Library()).fitted([], [], too_sure).temperature == 1.0
    assert gate(Library()).restored({"min_top1": 0.3, "min_margin": 0.1}).min_top1 == 0.3


def test_a_checkpoint_is_chosen_on_questions_as_they_are_asked():
    assert Once().views(ROWS, []) == ROWS
    shown = gate(Library(silent=["known"])).views(ROWS, [])
    assert shown[:6] == ROWS
    assert [one.id for one in shown[6:]] == ["q0", "q2", "q4"]
    assert all(one.fields["passages"] for one in shown[6:])
    assert [bool(one.fields["passages"]) for one in WithPassages(Search(Library(["known"]))).views(ROWS, [])] == [
        1,
        0,
    ] * 3
    assert [len(one.demonstrations) for one in FewShot(2).views(ROWS, POOL)] == [2] * 6


def test_impossible_thresholds_are_refused_at_once():
    with pytest.raises(UserError, match="min_top1=-1"):
        gate(Library(), min_top1=-1)


def test_with_passages_every_question_is_asked_with_them():
    answer = Places(likes_places=0.0)
    predictions = WithPassages(Search(Library(silent=["known"])))(ROWS, answer)
    np.testing.assert_array_equal(predictions.columns["found"], [1, 0, 1, 0, 1, 0])
    assert len(answer.asked) == 1


def test_training_rows_are_shown_with_passages_and_sometimes_alone():
    turns = ShuffleOptions(num_orders=3)(ROWS[:2])
    rows = AddPassages(Search(Library(silent=["known"])), alone_every=2)(turns)
    assert [(row.id, row.round, bool(row.fields.get("passages"))) for row in rows] == [
        ("q0", 0, True),
        ("q0", 0, False),
        ("q0", 1, True),
        ("q0", 2, True),
        ("q0", 2, False),
        ("q1", 0, False),
        ("q1", 1, False),
        ("q1", 2, False),
    ]


POOL = [
    question(10, 2, 1, "the capital of France"),
    question(11, 2, 0, "the colour of grass"),
    question(12, 2, 1, "the capital of Japan"),
]


def test_the_most_similar_solved_question_stands_last():
    (asked,) = show_similar([question(1, 2, None, "the capital of Peru, not of Japan")], POOL, 2)
    assert [one.id for one in asked.demonstrations] == ["q10", "q12"]


def test_a_row_never_demonstrates_itself_or_its_own_text():
    again = question(13, 2, 1, "The capital of FRANCE!")
    assert all(
        {one.id for one in row.demonstrations}.isdisjoint({row.id})
        for row in AddDemonstrations(3)([*POOL, question(10, 2, 0, "x")])
    )
    twin = Example("twin", POOL[0].fields, 1, 2)
    (asked,) = show_similar([twin], POOL, 3)
    assert "q10" not in {one.id for one in asked.demonstrations}
    (other,) = show_similar([again], POOL, 3)
    assert len(other.demonstrations) == 3, "another question's options make it another text"


def test_a_question_under_two_ids_is_never_shown_to_itself_whatever_its_order():
    pool = ShuffleOptions(num_orders=1, seed=5)([question(10, 4, 0, "the capital of France")])
    twin = question(10, 4, 0, "The capital of France?")
    asked = Example("twin", {**twin.fields, "passages": ("the capital of France",)}, None, 4)
    assert show_similar([asked], [*pool, *POOL[1:]], 3)[0].demonstrations == (POOL[1], POOL[2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: RotationAveraged(-1),
        lambda: RotationAveraged(0),
        lambda: ShuffleOptions(num_orders=0),
        lambda: AddPassages(Search(Library()), alone_every=0),
        lambda: FewShot(0),
        lambda: AddDemonstrations(0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(UserError, match="expected"):
        make()


def test_few_shot_shows_training_rows_only_and_remembers_them():
    answer = Places()
    few = FewShot(2).fitted(POOL, [question(20, 2, 1, "the capital of dev")], answer)
    few([question(1, 2, None, "the capital of dev")], answer)
    shown = {one.id for one in answer.asked[-1][0].demonstrations}
    assert shown == {"q10", "q12"}
    restored = FewShot(2).restored(few.state())
    assert [one.id for one in restored.pool] == ["q10", "q11", "q12"]
    restored([question(1, 2, None, "the capital of dev")], answer)
    assert {one.id for one in answer.asked[-1][0].demonstrations} == shown


class Sides:
    """Prefers the first answer by the strength that its text names."""

    def __init__(self) -> None:
        self.asked: list[list[Example]] = []

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        self.asked.append(list(examples))
        sides = [[float(one.fields[f"response_{side}"][0]) for side in "ab"] for one in examples]
        probs = np.exp([[0.5 + a, b, 0.0] for a, b in sides])
        probs /= probs.sum(axis=1, keepdims=True)
        return LabelPredictions(tuple(e.id for e in examples), probs, {"seconds": np.ones(len(examples))})


PAIRS = [Example(f"p{n}", {"response_a": (f"{n}",), "response_b": ("0",)}, 0) for n in range(5)]


@pytest.mark.parametrize(("threshold", "number"), [(0.0, 0), (0.7, 2), (1.01, 5)])
def test_only_unsure_pairs_are_asked_in_the_other_order(threshold, number):
    answer = Sides()
    adaptive = AdaptiveSwap(min_top1=threshold, min_margin=0.0)(PAIRS, answer)
    once, both = Once()(PAIRS, Sides()).probs, SwapAveraged()(PAIRS, Sides())
    swapped = adaptive.columns["swapped"]
    assert [len(asked) for asked in answer.asked] == [5, number][: 1 + bool(number)]
    assert swapped.sum() == number
    np.testing.assert_allclose(adaptive.probs, np.where(swapped[:, None], both.probs, once), rtol=1e-12)
    np.testing.assert_array_equal(adaptive.columns["seconds"], 1 + swapped)


def test_an_adaptive_swap_takes_its_thresholds_from_a_chosen_gate_alone():
    own = AdaptiveSwap(min_top1=0.4)
    assert own.restored({"temperature": 2.0}) == own
    chosen = own.restored({"temperature": 2.0, "min_top1": 0.3, "min_margin": 0.2, "keep_confident": False})
    assert (chosen.min_top1, chosen.min_margin, chosen.temperature) == (0.3, 0.2, 2.0)
    with pytest.raises(UserError, match="min_top1=-1"):
        AdaptiveSwap(min_top1=-1)
