"""The baseline of tables: it learns words, knows of new classes, and needs no vocabulary that anybody can spoil."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.tasks.baselines.words import WordBaseline
from nexttoken.types import Example

SUBJECTS = ("cards", "cash", "rates")


def example(text: str, label: int | None = None, **fields: str) -> Example:
    return Example(text, {"text": (text,), **{name: (value,) for name, value in fields.items()}}, label)


def messages(number: int) -> list[Example]:
    """Each speaks of one subject, which is its class."""
    return [example(f"message {row} about {SUBJECTS[row % 3]}", row % 3) for row in range(number)]


def test_it_learns_the_word_that_decides():
    probs = WordBaseline(3, ("text",)).fit(messages(60)).predict([example(f"My {word}!") for word in SUBJECTS])
    assert probs.argmax(axis=1).tolist() == [0, 1, 2]
    assert probs.max(axis=1).min() > 0.8
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)


def test_it_is_the_same_every_time():
    first, second = (WordBaseline(3, ("text",)).fit(messages(60)).predict(messages(9)) for _ in range(2))
    assert np.array_equal(first, second)


def test_only_its_fields_count():
    rows = [example(f"text {row}", row % 2, answer="right" if row % 2 else "wrong") for row in range(40)]
    probs = WordBaseline(2, ("text",)).fit(rows).predict([example("text", answer="right")])
    assert abs(probs[0, 1] - 0.5) < 0.15
    probs = WordBaseline(2, ("text", "answer")).fit(rows).predict([example("text", answer="right")])
    assert probs[0, 1] > 0.9


def test_new_classes_share_what_the_rows_seen_once_say_of_them():
    """Of nine rows one has a class of its own: Good's estimate is 1 / 9, here (1 + 1) / (9 + 1)."""
    rows = [*(example(f"row {n} of cards", 0) for n in range(8)), example("cash", 1)]
    probs = WordBaseline(4, ("text",)).fit(rows).predict(rows)
    assert probs[:, 2:].tolist() == pytest.approx(np.full((9, 2), 0.1))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)


def test_one_class_is_certain_but_for_the_others_that_were_never_seen():
    probs = WordBaseline(2, ("text",)).fit([example("a", 1), example("b", 1), example("c", 1)]).predict([example("d")])
    assert probs.tolist() == [[0.25, 0.75]]


def test_votes_are_learnt_as_shares():
    """Ten people of whom seven said the first class are a row of both classes: the prediction is near 0.7."""
    voted = [Example(str(n), {"text": ("cards",)}, 0, votes=(0.7, 0.3)) for n in range(40)]
    probs = WordBaseline(2, ("text",)).fit(voted).predict([example("cards")])
    assert probs[0] == pytest.approx([0.7, 0.3], abs=0.02)


def test_rows_without_a_label_teach_nothing():
    rows = messages(30)
    fitted = WordBaseline(3, ("text",)).fit([*rows, example("cash cash", None)])
    assert np.array_equal(fitted.predict(rows), WordBaseline(3, ("text",)).fit(rows).predict(rows))
    with pytest.raises(UserError, match="no labelled examples"):
        WordBaseline(3, ("text",)).fit([example("a")])
    with pytest.raises(UserError, match="not fitted"):
        WordBaseline(3, ("text",)).predict(rows)
    assert fitted.predict([]).shape == (0, 3)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.text(), st.integers(0, 4)), min_size=1, max_size=12), st.lists(st.text(), max_size=3))
def test_any_texts_give_probabilities(rows, asked):
    fitted = WordBaseline(5, ("text",)).fit([example(text, label) for text, label in rows])
    probs = fitted.predict([example(text) for text in asked])
    assert probs.shape == (len(asked), 5)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-9)
