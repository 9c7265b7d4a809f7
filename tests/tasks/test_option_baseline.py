"""The baseline finds what a quiz gives away by its making, and nothing where there is nothing to find."""

import json
from pathlib import Path

import numpy as np
import pytest

from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import accuracy, chance_accuracy, log_loss, uniform_log_loss
from nexttoken.tasks.baselines.options import OptionBaseline, OptionPast, _Question, option_features
from nexttoken.types import Example

KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほ"


def example(question: str, options: list[str], label: int | None = None, id: str = "1") -> Example:
    return Example(id, {"question": (question,), "options": tuple(options)}, label, len(options))


def labels(examples: list[Example]) -> np.ndarray:
    return np.array([one.label for one in examples])


def text(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list(KANA), length))


def quiz(rng: np.random.Generator, num_rows: int, right_length: int = 6, wrong_length: int = 6) -> list[Example]:
    """Japanese questions of 2 to 5 options whose right one is as long as `right_length` says; its place is chance."""
    rows = []
    for number in range(num_rows):
        size = int(rng.integers(2, 6))
        label = int(rng.integers(size))
        options = [text(rng, (right_length if place == label else wrong_length) + int(rng.integers(3)))
                   for place in range(size)]  # fmt: skip
        rows.append(example(text(rng, 20), options, label, str(number)))
    return rows


def permuted(one: Example, order: list[int]) -> Example:
    options = [one.fields["options"][place] for place in order]
    return example(one.fields["question"][0], options, order.index(one.label or 0), one.id)


@pytest.fixture(scope="module")
def longer_is_right() -> list[Example]:
    return quiz(np.random.default_rng(0), 200, right_length=8)


def test_it_beats_chance_where_length_tells(longer_is_right):
    fitted = OptionBaseline(5).fit(longer_is_right)
    held_out = quiz(np.random.default_rng(1), 200, right_length=8)
    sizes = np.array([one.num_options for one in held_out])
    probs = fitted.predict(held_out)
    assert accuracy(probs, labels(held_out)) > chance_accuracy(sizes) + 0.25
    assert log_loss(probs, labels(held_out)) < uniform_log_loss(sizes) - 0.2


def test_it_stays_at_chance_where_nothing_tells():
    rows, held_out = quiz(np.random.default_rng(2), 600), quiz(np.random.default_rng(3), 400)
    uniform = uniform_log_loss([one.num_options for one in held_out])
    assert log_loss(OptionBaseline(5).fit(rows).predict(held_out), labels(held_out)) < uniform + 0.02


def test_absent_options_get_exactly_nothing(longer_is_right):
    probs = OptionBaseline(7).fit(longer_is_right).predict(longer_is_right)
    sizes = np.array([one.num_options for one in longer_is_right])
    assert probs.shape == (200, 7)
    assert (probs[np.arange(7) >= sizes[:, None]] == 0).all()
    assert (probs[np.arange(7) < sizes[:, None]] > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)


def test_places_that_say_nothing_leave_it_symmetric():
    """Every question in all its rotations: then no place is more often right than another, by construction."""
    rng = np.random.default_rng(4)
    rows = [example(text(rng, 15), [text(rng, int(n)) for n in rng.integers(1, 9, 4)], 2) for _ in range(40)]
    turns = [[(place + turn) % 4 for place in range(4)] for turn in range(4)]
    fitted = OptionBaseline(4).fit([permuted(row, turn) for row in rows for turn in turns])
    for order in ([3, 2, 1, 0], [1, 0, 3, 2]):
        straight = fitted.predict(rows)
        np.testing.assert_allclose(fitted.predict([permuted(r, order) for r in rows]), straight[:, order], atol=1e-4)


def test_a_place_that_tells_is_found():
    rng = np.random.default_rng(5)
    rows = [example(text(rng, 9), [text(rng, 4) for _ in range(4)], int(rng.choice(4, p=[0, 0, 0.1, 0.9])))
            for _ in range(200)]  # fmt: skip
    probs = OptionBaseline(4).fit(rows).predict([example("x", ["a", "b", "c", "d"])])
    assert probs[0].argmax() == 3
    assert probs[0, 3] > 0.6


def test_what_was_right_before_is_remembered():
    rng = np.random.default_rng(6)
    cities = ["東京", "大阪", "京都"]
    turns = [[cities[(place + turn) % 3] for place in range(3)] for turn in range(3)]
    rows = [example(text(rng, 12), turn, turn.index("東京")) for turn in turns for _ in range(100)]
    probs = OptionBaseline(3).fit(rows).predict([example("首都はどこ?", ["大阪", "東京"])])
    assert probs[0, 1] > 0.7
    assert probs[0, 2] == 0


def test_an_answer_does_not_tell_itself():
    """Random options that are each seen once: what a row says of its own options may not become a weight."""
    rng = np.random.default_rng(7)
    rows = [example(text(rng, 12), [text(rng, 5) for _ in range(4)], int(rng.integers(4))) for _ in range(300)]
    rows += rows  # and a question that stands there twice may not, either
    held_out = [example(text(rng, 12), [text(rng, 5) for _ in range(4)], int(rng.integers(4))) for _ in range(300)]
    assert log_loss(OptionBaseline(4).fit(rows).predict(held_out), labels(held_out)) < uniform_log_loss(4) + 0.03


def test_features_follow_their_options_exactly():
    options, order = ["the cat sat", "a dog", "", "12 cats", "the cat sat"], [4, 2, 0, 3, 1]
    features = option_features("what did the cat do?", options)
    turned = option_features("what did the cat do?", [options[place] for place in order])
    np.testing.assert_array_equal(turned, features[order])
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[0], features[4])


def test_the_past_by_hand():
    past = OptionPast.of([_Question("q", ("a", "b"), 0), _Question("r", ("a", "b", "c"), 0), _Question("s", ("a",), 0)])
    ratio = (3 + 5 * (11 / 6) / 3) / (11 / 6 + 5 * (11 / 6) / 3)
    assert past.numbers("a") == pytest.approx([np.log(ratio), np.log(4)])
    assert past.numbers("b")[0] < 0
    assert past.numbers("new") == [0, 0]


def test_the_same_rows_give_the_same_bytes(longer_is_right):
    first, second = (OptionBaseline(5).fit(longer_is_right).predict(longer_is_right) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_rows_without_a_label_teach_nothing(longer_is_right):
    unknown = [example("?", ["x" * 50, "y"], None, "u")]
    with_unknown = OptionBaseline(5).fit([*longer_is_right, *unknown]).predict(longer_is_right)
    np.testing.assert_array_equal(with_unknown, OptionBaseline(5).fit(longer_is_right).predict(longer_is_right))
    with pytest.raises(UserError, match="got no labelled examples"):
        OptionBaseline(5).fit(unknown)


def test_wrong_use_is_one_line(longer_is_right):
    with pytest.raises(UserError, match="is not fitted"):
        OptionBaseline(5).predict(longer_is_right)
    with pytest.raises(UserError, match=r"no option or more than 3: ids .* more; give"):
        OptionBaseline(3).fit(longer_is_right)
    assert OptionBaseline(5).fit(longer_is_right).predict([]).shape == (0, 5)


def test_a_single_training_row_is_enough():
    probs = OptionBaseline(3).fit([example("q", ["a", "bb"], 1)]).predict([example("r", ["a", "bb", "c" * 20_000])])
    assert np.isfinite(probs).all()
    assert probs.sum() == pytest.approx(1)


def test_real_japanese_questions_give_away_a_little(shared_dir: Path):
    def read(name: str, limit: int) -> list[Example]:
        lines = (shared_dir / f"data/jcommonsenseqa/{name}-v1.3.json").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines[:limit]]
        return [example(r["question"], [r[f"choice{k}"] for k in range(5)], r["label"], str(r["q_id"])) for r in rows]

    probs = OptionBaseline(5).fit(read("train", 2000)).predict(valid := read("valid", 1200))
    assert 0.25 < accuracy(probs, labels(valid)) < 0.45
    assert log_loss(probs, labels(valid)) < uniform_log_loss(5) - 0.05
