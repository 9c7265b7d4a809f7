"""The options of a question in another order: shuffled to learn from, rotated to be asked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nexttoken.types import Example

OPTIONS = "options"


def reorder(example: Example, order: Sequence[int]) -> Example:
    """The question with option `order[k]` in place k, and the label with it."""
    options = example.fields[OPTIONS]
    label = None if example.label is None else list(order).index(example.label)
    return replace(example, fields={**example.fields, OPTIONS: tuple(options[old] for old in order)}, label=label)


@dataclass(frozen=True)
class ShuffleOptions:
    """Every question in `num_orders` random orders of its options, which take turns: one an epoch.

    Only the question, not where its answer stood, is the same in two epochs that follow each other, so the place cannot
    be learnt by heart. The orders depend on the seed and the row's id, not on other rows.
    """

    num_orders: int = 8
    seed: int = 0

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [shuffled for example in examples for shuffled in self._orders(example)]

    def _orders(self, example: Example) -> list[Example]:
        draw = random.Random(f"{self.seed} {example.id}")
        own = range(len(example.fields[OPTIONS]))
        orders = [draw.sample(own, len(own)) for _ in range(self.num_orders)]
        return [replace(reorder(example, order), turn=turn) for turn, order in enumerate(orders)]
