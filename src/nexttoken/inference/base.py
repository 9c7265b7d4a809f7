"""What every way of asking offers: it may learn from the fold's own rows first, and keeps that with the fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nexttoken.types import Example, LabelPredictions

Answerer = Callable[[Sequence[Example]], LabelPredictions]


class Inference:
    """A way of using an answerer. Frozen: what it learns is in the copy that `fitted` returns."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        raise NotImplementedError

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The questions as this way of asking shows them: what a checkpoint has to be good at, to be chosen."""
        return list(examples)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> "Inference":
        """A copy that knows what it needs of the fold's training and dev rows; the held-out rows are never shown."""
        return self

    def state(self) -> dict[str, Any]:
        """What `fitted` learnt, ready for JSON; empty where there is nothing to learn."""
        return {}

    def restored(self, state: Mapping[str, Any]) -> "Inference":
        """A copy that knows what `state` of a trained fold says."""
        return self


@dataclass(frozen=True)
class Once(Inference):
    """Ask every question as it stands."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        return answer(examples)
