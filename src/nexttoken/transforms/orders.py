"""Other orders of the choices: the two answers of a pair, the options of a question."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nexttoken.errors import UserError
from nexttoken.types import OPTIONS, Example, Swap

A_B_TIE = Swap(classes=(1, 0, 2))  # A wins, B wins, tie


def swap_sides(example: Example, swap: Swap = A_B_TIE) -> Example:
    """Exchange the two answers of a pair: every field of a side with the other side's, and the label.

    Twice is the identity. Raises UserError for a field without its partner.
    """
    fields = {_partner(name, swap.sides): turns for name, turns in example.fields.items()}
    if alone := [name for name in example.fields if name not in fields]:
        raise UserError(f"row {example.id} has a field {alone[0]!r} without its partner for the other answer; add it")
    label = None if example.label is None else swap.classes[example.label]
    votes = tuple(example.votes[partner] for partner in swap.classes) if example.votes else ()
    return replace(example, fields={name: fields[name] for name in example.fields}, label=label, votes=votes)


def _partner(name: str, sides: tuple[str, str]) -> str:
    for side, other in (sides, sides[::-1]):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name


@dataclass(frozen=True)
class BothOrders:
    """Every pair in both orders, under one id: the two share an optimizer step (log loss 0.003 below a random swap)."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "pairs"})

    swap: Swap = A_B_TIE

    def for_task(self, task: Any) -> "BothOrders":
        return replace(self, swap=Swap.of(task))

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [order for example in examples for order in (example, swap_sides(example, self.swap))]


def reorder(example: Example, order: Sequence[int]) -> Example:
    """Put option `order[k]` in place k, and change the label and the votes to match."""
    options = example.fields[OPTIONS]
    label = None if example.label is None else list(order).index(example.label)
    votes = tuple(example.votes[old] for old in order) if example.votes else ()
    fields = {**example.fields, OPTIONS: tuple(options[old] for old in order)}
    return replace(example, fields=fields, label=label, votes=votes)


@dataclass(frozen=True)
class ShuffleOptions:
    """Every question in `num_orders` random orders of its options, one per epoch in turn.

    The place of the right option changes between epochs, so the model cannot memorise it. The orders depend on the seed
    and the example's id, not on other examples.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "options"})

    num_orders: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_orders < 1:
            raise UserError(f"num_orders={self.num_orders}: expected at least 1 order of a question's options")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [shuffled for example in examples for shuffled in self._orders(example)]

    def _orders(self, example: Example) -> list[Example]:
        draw = random.Random(f"{self.seed} {example.id}")
        places = range(len(example.fields[OPTIONS]))
        orders = [draw.sample(places, len(places)) for _ in range(self.num_orders)]
        return [replace(reorder(example, order), round=number) for number, order in enumerate(orders)]
