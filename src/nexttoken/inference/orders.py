"""Averages over several orders of the answers, so that their positions do not matter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, ClassVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
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
        return LabelPredictions(asked.ids[:number], self.average(straight, swapped), {"seconds": seconds})

    def average(self, straight: np.ndarray, swapped: np.ndarray) -> np.ndarray:
        """The mean of both answers (N, K), the second one given to the swapped pair."""
        return (straight + swapped[:, list(self.swap.classes)]) / 2


@dataclass(frozen=True)
class AdaptiveSwap(SwapAveraged):
    """Query a pair in the other order only where the first answer is unsure, and average the two.

    `python -m nexttoken gate` chooses the thresholds on held-out rows and saves them with the run.
    """

    min_top1: float = 0.5
    min_margin: float = 0.1
    temperature: float = 1.0

    @property
    def gate(self) -> Gate:
        return Gate(self.min_top1, self.min_margin, self.temperature, keep_confident=False)

    def __post_init__(self) -> None:
        _ = self.gate  # refuses wrong thresholds before anything is loaded

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        first = answer(examples)
        unsure = self.gate.unsure(first.probs)
        probs, seconds = first.probs.copy(), np.array(first.columns["seconds"], dtype=np.float64)
        if unsure.any():
            second = answer([swap_sides(example, self.swap) for example in compress(examples, unsure)])
            probs[unsure] = self.average(probs[unsure], second.probs)
            seconds[unsure] += second.columns["seconds"]
        print(f"gate: unsure of {unsure.mean():.1%} of {len(examples)} rows, which were asked in both orders")
        return LabelPredictions(first.ids, probs, {"seconds": seconds, "swapped": unsure})

    def restored(self, state: Mapping[str, Any]) -> "AdaptiveSwap":
        """Thresholds are in `state` where they were chosen out of fold (gate.json)."""
        saved = {key: state[key] for key in ("min_top1", "min_margin", "temperature") if "min_top1" in state}
        return replace(self, **saved)


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
