"""Character statistics as a baseline: a proper distribution that knows what it has seen."""

import math

import pytest

from nexttoken.tasks.baselines.characters import END, CharacterModel

ANSWERS = ["abab", "abba", "ab", ""]


@pytest.mark.parametrize("before", ["", "a", "ab", "xyz", "babab"])
def test_probabilities_sum_to_one_over_known_characters_and_one_unknown(before):
    model = CharacterModel.fit(ANSWERS)
    assert model.num_symbols == 4  # a, b, the end, anything else
    assert sum(model._probability(before, character) for character in ("a", "b", END, "?")) == pytest.approx(1)


def test_what_was_seen_is_more_probable_than_what_was_not():
    model = CharacterModel.fit(["the cat sat"] * 3)
    assert model.nll_per_character(["the cat sat"]) < model.nll_per_character(["tac eht tas"]) / 5
    assert model.nll_per_character(["日本"]) > math.log(model.num_symbols)


def test_the_end_is_part_of_an_answer():
    model = CharacterModel.fit(["a"] * 50)
    assert model.nll_per_character(["a"]) < model.nll_per_character(["aa"])


def test_without_answers_every_character_is_unknown():
    assert CharacterModel.fit([]).nll_per_character(["abc"]) == pytest.approx(0)  # one symbol: anything
    assert CharacterModel.fit([""]).nll_per_character([]) == 0
