"""The baseline of a table, by the names of its columns: of pairs, of rows with their own examples, or of words."""

from collections.abc import Sequence

from nexttoken.tasks.baselines.own_examples import OwnExamplesBaseline
from nexttoken.tasks.baselines.regression import PairBaseline
from nexttoken.tasks.baselines.words import WordBaseline
from nexttoken.types import Baseline, Swap

POSITIVE, NEGATIVE = "positive_example", "negative_example"  # beginnings of columns with solved examples


def choose_baseline(fields: Sequence[str], first: Sequence[str], num_classes: int, swap: Swap | None) -> Baseline:
    """Return the baseline for rows of `fields`; of several texts those of `first` are the ones to classify."""
    sides = [next((name for name in fields if name.endswith(side)), "") for side in (swap.sides if swap else ())]
    if swap and all(sides):
        shared = next((name for name in fields if not name.endswith(swap.sides)), sides[0])
        return PairBaseline((sides[0], sides[1]), shared, swap.classes)
    positive, negative = ([name for name in fields if name.startswith(start)] for start in (POSITIVE, NEGATIVE))
    texts = [name for name in (*first, *fields) if name in fields and name not in (*positive, *negative)]
    if positive and negative and texts and num_classes == 2:
        return OwnExamplesBaseline(texts[0], tuple(positive), tuple(negative))
    return WordBaseline(num_classes, tuple(fields))
