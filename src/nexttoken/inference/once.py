"""What every way of asking offers: it may learn from the fold's own rows first, and keeps that with the fold."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from nexttoken.types import Example

Answerer = Callable[[Sequence[Example]], Any]  # class probabilities, losses of known answers, or texts


def remembering(answer: Answerer, unsure: Callable[[np.ndarray], np.ndarray]) -> AbstractContextManager[None]:
    """Within this context an answerer that can keeps what it reads of the first questions for asking more about them:
    of those whose probabilities (N, K) `unsure` marks (N,). The answers are the same to rounding.
    """
    own = getattr(answer, "caching_prefixes", None)
    return nullcontext() if own is None else own(unsure)


class Inference:
    """A way of using an answerer. Frozen: what it learns is in the copy that `fitted` returns."""

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> Any:
        raise NotImplementedError

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The questions as this way of asking shows them: what a checkpoint has to be good at, to be chosen."""
        return list(examples)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> "Inference":
        """A copy that knows what it needs of the fold's training and dev rows; the held-out rows are never shown."""
        return self

    @property
    def shows_pool(self) -> bool:
        """Whether `with_pool` has to be called before anything is asked."""
        return False

    def with_pool(self, examples: Sequence[Example]) -> "Inference":
        """A copy that shows demonstrations from these solved rows, where it shows any that it does not keep itself."""
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

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> Any:
        return answer(examples)
