import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.data.folds import GroupedStratified
from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_loss, prior_probs
from nexttoken.tasks.baselines.regression import PairBaseline
from nexttoken.transforms.counts import pair_features, text_counts
from nexttoken.types import Example

SWAP = [1, 0, 2]


def _example(prompt: str, first: str, second: str, label: int | None = None, id: str = "1") -> Example:
    return Example(id, {"prompt": (prompt,), "response_a": (first,), "response_b": (second,)}, label)


def _swapped(example: Example) -> Example:
    fields = dict(example.fields)
    fields["response_a"], fields["response_b"] = fields["response_b"], fields["response_a"]
    return Example(example.id, fields, None if example.label is None else SWAP[example.label])


@pytest.fixture(scope="module")
def longer_wins() -> list[Example]:
    """Answers of random length: the longer one wins, nearly equal ones tie."""
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    examples = []
    for number in range(300):
        first, second = rng.integers(1, 60, 2)
        label = 2 if abs(first - second) < 8 else int(first < second)
        texts = (" ".join(rng.choice(words, size)) for size in (first, second))
        examples.append(_example("Tell me something", *texts, label, str(number)))
    return examples


@pytest.fixture(scope="module")
def arena(shared_dir: Path) -> list[Example]:
    table = pd.read_csv(shared_dir / "data/arena-mini/train.csv", dtype=str, keep_default_na=False)
    labels = table[["winner_model_a", "winner_model_b", "winner_tie"]].astype(int).to_numpy().argmax(axis=1)
    return [
        Example(
            str(row["id"]),
            {
                name: tuple(turn or "" for turn in json.loads(row[name]))
                for name in ("prompt", "response_a", "response_b")
            },
            int(label),
        )
        for row, label in zip(table.to_dict("records"), labels, strict=True)
    ]


def test_text_counts_by_hand() -> None:
    text = "The cat sat.\n\n- the cat\n1. sat on a mat"
    assert text_counts(text, "Where was the cat on Monday? The cat sat") == {
        "characters": 39,
        "words": 10,  # the cat sat the cat 1 sat on a mat
        "new_words": 3,  # 1 a mat
        "paragraphs": 2,
        "list_items": 2,
        "distinct_share": 7 / 10,
        "copied_share": 1 / 8,  # "the cat sat", of eight runs of three
    }
    assert text_counts("猫が好き")["words"] == 4
    assert set(text_counts("").values()) == {0}


def test_swapping_the_answers_negates_the_signed_features_only() -> None:
    first, second, context = "A long answer, with - a dash\n\n- and a list", "Short.", "A question of dashes"
    forward, backward = pair_features(first, second, context), pair_features(second, first, context)
    assert {name: -value for name, value in forward.signed.items()} == backward.signed
    assert forward.shared == backward.shared
    assert forward.signed["characters"] > 0
    assert forward.shared["identical"] == 0
    assert pair_features(first, first).shared["identical"] == 1


def test_longer_answers_are_learned_and_ties_too(longer_wins: list[Example]) -> None:
    train, held_out = longer_wins[:200], longer_wins[200:]
    labels = np.array([example.label for example in held_out])
    probs = PairBaseline(strength=1.0).fit(train).predict(held_out)
    assert probs.shape == (100, 3)
    assert probs.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert log_loss(probs, labels) < 0.5 < log_loss(prior_probs([e.label for e in train], 3, [3] * 100), labels)


def test_swapping_the_answers_swaps_the_probabilities(longer_wins: list[Example]) -> None:
    baseline = PairBaseline().fit(longer_wins)
    odd = [_example("", "", ""), _example("?", "same", "same"), _example("hi", "x" * 200_000, ""), *longer_wins[:50]]
    probs = baseline.predict(odd)
    swapped = baseline.predict([_swapped(example) for example in odd])
    assert np.abs(swapped - probs[:, SWAP]).max() < 1e-12
    assert probs[0, 0] == pytest.approx(probs[0, 1], abs=1e-12)  # identical answers: neither side is ahead
    assert np.ptp(probs[:, 0]) > 0.5  # and it does say something
    other_order = PairBaseline().fit([_swapped(example) for example in longer_wins]).predict(odd)
    assert np.abs(other_order - probs).max() < 1e-4  # the training order does not matter either


def test_a_prediction_depends_on_its_own_row_only(longer_wins: list[Example]) -> None:
    baseline = PairBaseline().fit(longer_wins)
    together = baseline.predict(longer_wins)
    alone = np.concatenate([baseline.predict([example]) for example in longer_wins[:20]])
    assert np.abs(together[:20] - alone).max() < 1e-12


def test_a_class_absent_from_training_keeps_a_probability() -> None:
    ties_only = [_example("p", "a", "b", 2, str(number)) for number in range(10)]
    probs = PairBaseline().fit(ties_only).predict(ties_only)
    assert (probs > 0).all()
    assert probs[0].argmax() == 2


def test_predicting_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="not fitted"):
        PairBaseline().predict([_example("p", "a", "b")])
    with pytest.raises(UserError, match="no labelled"):
        PairBaseline().fit([_example("p", "a", "b")])


def test_arena_mini_out_of_fold_beats_the_published_baseline(arena: list[Example]) -> None:
    labels = np.array([example.label for example in arena])
    groups = group_ids(["\n".join(example.fields["prompt"]) for example in arena])
    folds = GroupedStratified().assign(labels, groups)
    probs, prior = np.empty((len(arena), 3)), []
    for fold in range(5):
        train = [example for example, other in zip(arena, folds, strict=True) if other != fold]
        held_out = [example for example, other in zip(arena, folds, strict=True) if other == fold]
        probs[folds == fold] = PairBaseline().fit(train).predict(held_out)
        prior.append(log_loss(prior_probs(labels[folds != fold], 3, [3] * len(held_out)), labels[folds == fold]))
    assert np.mean(prior) == pytest.approx(1.05, abs=0.01)
    assert log_loss(probs, labels) < 0.91  # published 0.97
