"""Transforms that add what a model can learn from: the other order of a pair, and the lengths it cannot count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nexttoken.types import Example

SWAPPED_CLASSES = (1, 0, 2)  # A wins, B wins, tie: after a swap class k is class SWAPPED_CLASSES[k]


def swap_sides(example: Example) -> Example:
    """Exchange every field ending in `_a` with its `_b`, and the label with them; twice is the identity."""
    partner = {"_a": "_b", "_b": "_a"}
    fields = {name[:-2] + partner.get(name[-2:], name[-2:]): turns for name, turns in example.fields.items()}
    label = None if example.label is None else SWAPPED_CLASSES[example.label]
    return replace(example, fields={name: fields[name] for name in example.fields}, label=label)


@dataclass(frozen=True)
class BothOrders:
    """Every pair in both orders, under one id: the two share an optimizer step (tascj: -0.003 over a random swap)."""

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [order for example in examples for order in (example, swap_sides(example))]


@dataclass(frozen=True)
class AddLengths:
    """Tell the prompt how long each answer is: `words_a`, `words_b` and their `longer` side on a coarse log scale.

    Human judges favour longer answers; a model that reads cut texts, or has seen few, cannot count them itself.
    """

    steps_per_doubling: int = 2
    largest: int = 6

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [replace(example, fields={**example.fields, **self._lengths(example)}) for example in examples]

    def _lengths(self, example: Example) -> Mapping[str, tuple[str, ...]]:
        words = {side: sum(len(turn.split()) for turn in example.fields[f"response{side}"]) for side in ("_a", "_b")}
        ratio = (
            math.log2((words["_a"] + 4) / (words["_b"] + 4)) * self.steps_per_doubling
        )  # + 4: short answers are noisy
        steps = max(-self.largest, min(self.largest, round(ratio)))
        signs = {"_a": "+" * max(steps, 0) or "=", "_b": "+" * max(-steps, 0) or "="}
        return {f"words{side}": (str(count),) for side, count in words.items()} | {
            f"longer{side}": (sign,) for side, sign in signs.items()
        }
