"""How often and in which order the model is asked: once, or in both orders of a pair and averaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nexttoken.transforms.augment import SWAPPED_CLASSES, swap_sides
from nexttoken.types import Example, LabelPredictions

Answerer = Callable[[Sequence[Example]], LabelPredictions]


class Inference(Protocol):
    """A way of using an answerer."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions: ...


@dataclass(frozen=True)
class Once:
    """Ask every question as it stands."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        return answer(examples)


@dataclass(frozen=True)
class SwapAveraged:
    """Ask in both orders and average: places no longer matter (others measured -0.006 to -0.015)."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        straight = answer(examples)
        swapped = answer([swap_sides(example) for example in examples])
        return LabelPredictions(straight.ids, (straight.probs + swapped.probs[:, SWAPPED_CLASSES]) / 2)
