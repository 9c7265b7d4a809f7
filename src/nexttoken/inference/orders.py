"""Averages over several orders of the answers, so that their positions do not matter."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.once import Answerer, Inference
from nexttoken.transforms.orders import A_B_TIE, reorder, swap_sides
from nexttoken.types import OPTIONS, Example, LabelPredictions, Swap


@dataclass(frozen=True)
class SwapAveraged(Inference):
    """Query a pair in both orders and average (published gains in log loss: 0.006 to 0.015)."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "pairs"})

    swap: Swap = A_B_TIE

    def for_task(self, task: Any) -> "SwapAveraged":
        return replace(self, swap=Swap.of(task))

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        number = len(examples)
        turned = [swap_sides(example, self.swap) for example in examples]
        asked = answer([*examples, *turned])  # together, so that batches fill up
        straight, swapped = asked.probs[:number], asked.probs[number:]
        seconds = asked.columns["seconds"][:number] + asked.columns["seconds"][number:]
        probs = (straight + swapped[:, list(self.swap.classes)]) / 2
        return LabelPredictions(asked.ids[:number], probs, {"seconds": seconds})


@dataclass(frozen=True)
class RotationAveraged(Inference):
    """Query with the options rotated, and average each option's probability over its positions.

    With `num_rotations` None every option takes every position once; otherwise that many evenly spread rotations.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "options"})

    num_rotations: int | None = None

    def __post_init__(self) -> None:
        if self.num_rotations is not None and self.num_rotations < 1:
            raise UserError(f"num_rotations={self.num_rotations}: expected at least 1, or null for every place")

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        orders = [self._orders(len(example.fields[OPTIONS])) for example in examples]
        flat = [(row, order) for row, some in enumerate(orders) for order in some]
        asked = answer([reorder(examples[row], order) for row, order in flat])
        probs = np.zeros((len(examples), asked.probs.shape[1]))
        for (row, order), own in zip(flat, asked.probs, strict=True):
            probs[row, order] += own[: len(order)] / len(orders[row])
        rows = [row for row, _ in flat]
        seconds = np.bincount(rows, weights=asked.columns["seconds"], minlength=len(examples))
        return LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": seconds})

    def _orders(self, num_options: int) -> list[list[int]]:
        number = min(self.num_rotations or num_options, num_options)
        starts = [turn * num_options // number for turn in range(number)]
        return [[(start + place) % num_options for place in range(num_options)] for start in starts]
