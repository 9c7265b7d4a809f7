"""Candidates of a row among many classes: labels by group, a search of their names, and all classes' probabilities."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.inference.candidates import Candidates
from nexttoken.inference.once import Once
from nexttoken.inference.orders import RotationAveraged, SwapAveraged
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.types import OPTIONS, Example, LabelPredictions, Swap

FLOWERS = ("red rose", "white rose", "blue iris", "tulip", "daisy", "oak tree")


@dataclass(frozen=True)
class Garden:
    """A task of many classes, as a table gives it."""

    classes: tuple[str, ...] = tuple("abcdef")
    class_names: tuple[str, ...] = FLOWERS
    labels_by: str | None = None
    settled: dict[str, Any] = field(default_factory=dict)
    name: str = "garden"
    swap: Swap | None = None


def row(row_id: str, label: int | None, group: str = "", text: str = "which flower?") -> Example:
    return Example(row_id, {"text": (text,)}, label, tags={"bed": group})


def weigh(examples: list[Example]) -> LabelPredictions:
    """A model whose logit of an option is the number of its letters: the same in any company and place."""
    probs = np.zeros((len(examples), max(len(example.fields[OPTIONS]) for example in examples)))
    for number, example in enumerate(examples):
        weights = np.exp([len(option) / 3 for option in example.fields[OPTIONS]])
        probs[number, : len(weights)] = weights / weights.sum()
    seconds = np.ones(len(examples))
    return LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": seconds})


def around(task: Garden, num_labels: int | None = None, ask: Any = None, **options: Any) -> Candidates:
    return Candidates(**options).around(ask or Once(), task, num_labels)


def full_softmax(pool: tuple[int, ...]) -> np.ndarray:
    weights = np.array([np.exp(len(name) / 3) if place in pool else 0.0 for place, name in enumerate(FLOWERS)])
    return weights / weights.sum()


def test_all_classes_are_candidates_without_a_group_or_a_number(capsys):
    found = around(Garden())([row("1", 2), row("2", 5)], weigh)
    assert found.probs == pytest.approx(np.array([full_softmax(tuple(range(6)))] * 2), abs=1e-12)
    assert found.columns["recalled"].tolist() == [True, True]
    assert "candidates: 6.0 of 6 classes a row" in capsys.readouterr().out


def test_a_label_of_the_held_out_part_alone_is_never_offered(capsys):
    """Its own group has other labels in the training part; in a learnt label space an unseen group lacks it, too."""
    train = [row("1", 0, "north"), row("2", 3, "north"), row("3", 1, "south")]
    held_out = [row("4", 5, "north"), row("5", 1, "south"), row("6", 4, "east")]
    fitted = around(Garden(labels_by="bed")).fitted(train, [], weigh)
    found = fitted(held_out, weigh)
    expected = [full_softmax((0, 3)), full_softmax((1,)), full_softmax(tuple(range(6)))]
    assert found.probs == pytest.approx(np.array(expected), abs=1e-12)
    assert (found.probs[0] == 0).tolist() == [False, True, True, False, True, True]
    assert found.columns["recalled"].tolist() == [False, True, True]
    assert "recall: the right one is among them in 66.7% of 3 rows" in capsys.readouterr().out
    learnt = around(Garden(labels_by="bed", settled={"classes": list("abcdef")})).fitted(train, [], weigh)
    assert learnt(held_out, weigh).probs[2] == pytest.approx(full_softmax((0, 1, 3)), abs=1e-12)


def test_dev_rows_are_shown_what_the_train_rows_know_and_held_out_rows_what_both_know():
    train, held_out = [row("1", 0, "north")], [row("3", 3, "north")]
    dev = [row("2", 3, "north"), row("4", 0, "north")]
    candidates = around(Garden(labels_by="bed"))
    view, other = candidates.views(dev, train)
    assert (view.fields[OPTIONS], view.label, view.num_options) == (("red rose",), None, 1)
    assert other.label == 0
    [alone] = candidates.views(dev[:1], train)
    assert (alone.fields[OPTIONS], alone.label) == (("red rose", "tulip"), 1), "else no checkpoint could be chosen"
    assert candidates.fitted(train, dev, weigh)(held_out, weigh).probs[0] == pytest.approx(full_softmax((0, 3)))


def test_the_state_of_a_fold_is_saved_by_the_names_of_the_classes():
    train = [row("1", 0, "north"), row("2", 3, "north"), row("3", 1, "south")]
    fitted = around(Garden(labels_by="bed", settled={"classes": []})).fitted(train, [], weigh)
    assert fitted.state() == {
        "candidates": {
            "counts": {"a": 1, "d": 1, "b": 1},
            "groups": {"north": ["a", "d"], "south": ["b"]},
            "others": ["a", "b", "d"],
        }
    }
    restored = around(Garden(labels_by="bed")).restored(fitted.state())
    assert restored.seen == fitted.seen


@settings(max_examples=50)
@given(data=st.data())
def test_training_shows_the_right_one_among_its_group_and_nothing_else(data):
    labels = st.integers(0, 5)
    pairs = data.draw(st.lists(st.tuples(labels, st.sampled_from(["north", "south"])), min_size=1, max_size=12))
    train = [row(str(number), *pair) for number, pair in enumerate(pairs)]
    sampled, rounds = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    num_labels = data.draw(st.sampled_from([None, 2, 4, 52]))
    candidates = around(Garden(labels_by="bed"), num_labels, sampled=sampled, num_rounds=rounds)
    shown = candidates.training_views(train, train)
    assert [*dict.fromkeys(view.id for view in shown)] == [example.id for example in train]
    for view in shown:
        label, group = pairs[int(view.id)]
        of_group = {FLOWERS[other] for other, own in pairs if own == group}
        assert view.fields[OPTIONS][view.label] == FLOWERS[label]
        assert len(set(view.fields[OPTIONS])) == view.num_options <= min(sampled + 1, num_labels or 99)
        assert set(view.fields[OPTIONS]) <= of_group
    assert shown == candidates.training_views(train, train), "drawn by the seed, the id and the round"


def test_each_round_of_training_draws_other_candidates():
    [*shown] = around(Garden(), sampled=2, num_rounds=8).training_views([row("1", 4)], [])
    assert [view.round for view in shown] == list(range(8))
    assert len({view.fields[OPTIONS] for view in shown}) > 4
    assert {option for view in shown for option in view.fields[OPTIONS]} == set(FLOWERS)
    assert len({view.label for view in shown}) > 1, "the right one takes different places"


def bm25(tmp_path) -> BM25:
    return BM25(corpus="none", index_dir=str(tmp_path))


def test_a_search_of_the_names_chooses_the_number_and_frequent_ones_fill_it_up(tmp_path, capsys):
    candidates = around(Garden(), number=2, retriever=bm25(tmp_path))
    fitted = candidates.fitted([row("1", 3), row("2", 3), row("3", 5)], [], weigh)
    rows = [row("4", 0, text="a rose, red"), row("5", 2, text="an iris"), row("6", 4, text="nothing of these")]
    assert fitted.pools(rows) == [(0, 1), (2, 3), (3, 5)]
    found = fitted(rows, weigh)
    assert found.columns["recalled"].tolist() == [True, True, False]
    assert found.probs[2] == pytest.approx(full_softmax((3, 5)), abs=1e-12)
    assert "candidates: 2.0 of 6 classes a row" in capsys.readouterr().out
    [view] = candidates.training_views([row("7", 4, text="an iris")], [row("1", 3)])
    assert set(view.fields[OPTIONS]) == {"blue iris", "tulip", "daisy"}, "the right one is shown though not found"


def test_a_search_stays_within_the_group(tmp_path):
    candidates = around(Garden(labels_by="bed"), number=2, retriever=bm25(tmp_path))
    fitted = candidates.fitted([row(str(label), label, "north") for label in (1, 2, 3)], [], weigh)
    assert fitted.pools([row("4", 0, "north", "a red rose or an iris")]) == [(2, 1)]


def test_a_number_above_the_classes_shows_all():
    assert around(Garden(), number=25).pools([row("1", 0)]) == [tuple(range(6))]


@settings(max_examples=40)
@given(st.integers(2, 9))
def test_queries_of_few_labels_are_joined_as_one_softmax_over_all(num_labels):
    seen: list[int] = []

    def answer(examples: list[Example]) -> LabelPredictions:
        seen.extend(len(example.fields[OPTIONS]) for example in examples)
        return weigh(examples)

    found = around(Garden(), num_labels)([row("1", 1), row("2", 2)], answer)
    assert max(seen) <= num_labels
    assert found.probs == pytest.approx(np.array([full_softmax(tuple(range(6)))] * 2), abs=1e-12)
    assert found.columns["seconds"] == pytest.approx(np.full(2, len(seen) / 2), abs=0.2)


def test_other_ways_see_all_classes():
    """A swap exchanges classes, whatever places they have among a row's candidates."""
    task = Garden(classes=("x", "y"), class_names=("the first answer", "b"), swap=Swap((1, 0)))
    pair = Example("1", {"response_a": ("long",), "response_b": ("s",)}, 0)

    def answer(examples: list[Example]) -> LabelPredictions:
        probs = [0.9 if example.fields["response_a"] == ("long",) else 0.2 for example in examples]
        columns = {"seconds": np.ones(len(examples))}
        return LabelPredictions(tuple(e.id for e in examples), np.array([[p, 1 - p] for p in probs]), columns)

    found = around(task, ask=SwapAveraged(Swap((1, 0))))([pair], answer)
    assert found.probs[0] == pytest.approx([(0.9 + 0.8) / 2, (0.1 + 0.2) / 2])
    quiz = Garden(classes=tuple("0123"), class_names=tuple("0123"))
    question = Example("1", {"question": ("?",), OPTIONS: ("rose", "blue iris", "oak")}, 1, 3)
    rotated = around(quiz, ask=RotationAveraged())([question], weigh)
    weights = np.exp([4 / 3, 9 / 3, 3 / 3])
    assert rotated.probs[0] == pytest.approx([*(weights / weights.sum()), 0.0])
    assert "recalled" not in rotated.columns


def test_demonstrations_are_answered_by_the_name_of_their_class():
    solved = replace(row("1", 3), demonstrations=(row("2", 5),))
    [view] = around(Garden()).views([solved], [])
    assert (view.demonstrations[0].label, view.demonstrations[0].answer) == (None, "oak tree")


def test_what_cannot_work_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^candidates.number=2 of 6 classes .*add retriever=bm25"):
        around(Garden(), number=2)
    with pytest.raises(UserError, match=r"^the classes 'a' and 'f' have the same name 'red rose'"):
        around(Garden(class_names=(*FLOWERS[:5], "red rose ")))
    for name in ("number", "sampled", "num_rounds"):
        with pytest.raises(UserError, match=rf"^candidates.{name}=0: expected at least 1"):
            Candidates(**{name: 0})


def test_votes_are_those_for_a_rows_candidates():
    fitted = around(Garden(labels_by="bed")).fitted([row("1", 0, "north"), row("2", 3, "north")], [], weigh)
    example = replace(row("3", 0, "north"), votes=(0.3, 0.5, 0.0, 0.2, 0.0, 0.0))
    assert fitted._view(example, (0, 3)).votes == pytest.approx((0.6, 0.4))
    assert fitted._view(example, (2, 4)).votes == ()
