import numpy as np
import pytest

from nexttoken.errors import UserError
from nexttoken.prompts.prompt import Prompt
from nexttoken.transforms.counts import AddCounts
from nexttoken.transforms.orders import BothOrders, swap_sides
from nexttoken.types import Example

POEM = "Roses are red\n\nViolets are blue"


def _example(first: str, second: str, label: int | None = 0, prompt: str = "Write a poem") -> Example:
    return Example("7", {"prompt": (prompt,), "response_a": (first,), "response_b": (second,)}, label)


@pytest.fixture
def random_examples() -> list[Example]:
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "a\n\n", "poem", "sky", ""])
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(0, 60, 100)]
    return [_example(*pair, int(rng.integers(3))) for pair in zip(texts[::2], texts[1::2], strict=True)]


def test_swap_exchanges_the_sides_and_the_winner():
    assert swap_sides(_example("one", "two", 0)) == _example("two", "one", 1)
    assert swap_sides(_example("one", "two", 2)) == _example("two", "one", 2)
    assert swap_sides(_example("one", "two", None)) == _example("two", "one", None)


def test_swapping_twice_is_the_identity(random_examples):
    counted = AddCounts()(random_examples)
    assert [swap_sides(swap_sides(example)) for example in counted] == counted
    assert [list(swap_sides(example).fields) for example in counted] == [list(example.fields) for example in counted]


def test_counts_of_the_swapped_are_the_swapped_counts(random_examples):
    swapped = [swap_sides(example) for example in random_examples]
    assert AddCounts()(swapped) == [swap_sides(example) for example in AddCounts()(random_examples)]


def test_both_orders_share_an_id_and_differ_in_the_label():
    pair = _example("one", "two", 0)
    assert BothOrders()([pair]) == [pair, _example("two", "one", 1)]


def test_counts_are_signs_of_the_difference():
    (counted,) = AddCounts()([_example(POEM, "A poem")])
    assert {name: turns for name, turns in counted.fields.items() if name not in ("prompt", "response_a")} == {
        "response_b": ("A poem",),
        "overlap": ("0",),
        "new_words_a": ("++++",),
        "new_words_b": ("----",),
        "paragraphs_a": ("+",),
        "paragraphs_b": ("-",),
        "distinct_share_a": ("--",),
        "distinct_share_b": ("++",),
        "characters_a": ("++++",),
        "characters_b": ("----",),
    }


def test_identical_answers_overlap_wholly_and_are_equal_in_everything():
    (counted,) = AddCounts()([_example(POEM, POEM)])
    added = {name: turns for name, turns in counted.fields.items() if name not in _example("", "").fields}
    assert added.pop("overlap") == ("9",)
    assert len(added) == 8
    assert set(added.values()) == {("=",)}


def test_absent_answers_are_counted():
    nothing, one = AddCounts()([_example("", ""), _example("", POEM)])
    assert (nothing.fields["overlap"], nothing.fields["new_words_a"]) == (("0",), ("=",))
    assert (one.fields["overlap"], one.fields["new_words_a"]) == (("0",), ("----",))


def test_the_turns_of_an_answer_are_counted_together():
    one = Example("1", {"prompt": ("Hi", "more"), "response_a": ("Roses are", "red"), "response_b": ("x", "y")})
    other = Example("1", {"prompt": ("Hi\nmore",), "response_a": ("Roses are\nred",), "response_b": ("x\ny",)})
    first, second = AddCounts()([one, other])
    names = [name for name in first.fields if name not in one.fields]
    assert [first.fields[name] for name in names] == [second.fields[name] for name in names]


@pytest.mark.parametrize(("steps", "sign"), [(1, "++"), (2, "++++"), (4, "++++")])
def test_steps_per_doubling_sets_how_coarse_a_count_is(steps, sign):
    (counted,) = AddCounts(compared=["characters"], steps_per_doubling=steps)([_example("x" * 399, "x" * 99)])
    assert counted.fields["characters_a"] == (sign,)
    assert "new_words_a" not in counted.fields


def test_an_unknown_count_is_refused_with_those_that_are_known():
    with pytest.raises(UserError, match=r"commas cannot be compared; choose from characters, words, new_words"):
        AddCounts(compared=["characters", "commas"])


def test_a_prompt_shows_how_one_answer_compares():
    prompt = Prompt("new words {{ new_words_a[0] }}\noverlap {{ overlap[0] }}\n", "### Answer\n", ["A", "B", "tie"])
    (counted,) = AddCounts()([_example(POEM, "A poem")])
    assert prompt.render(counted)[0].content == "new words ++++\noverlap 0\n"
