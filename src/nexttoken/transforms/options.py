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
    """Every question in `copies` random orders of its options, under one id: they share an optimizer step.

    The orders depend on the seed and the row's id only, not on other rows. With `as_written`, the file's own order
    is one of them.
    """

    copies: int = 1
    seed: int = 0
    as_written: bool = False

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [copy for example in examples for copy in self._copies(example)]

    def _copies(self, example: Example) -> list[Example]:
        draw = random.Random(f"{self.seed} {example.id}")
        own = list(range(len(example.fields[OPTIONS])))
        orders = [own] * self.as_written
        orders += [draw.sample(own, len(own)) for _ in range(self.copies - len(orders))]
        return [reorder(example, order) for order in orders]
