"""Inference, the interface of all ways to query the model, and the simplest of them: every example once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms.dialogue import replies
from nexttoken.types import Example, LabelPredictions

Answerer = Callable[[Sequence[Example]], Any]  # class probabilities, losses of known answers, or texts


def remembering(answer: Answerer, unsure: Callable[[np.ndarray], np.ndarray]) -> AbstractContextManager[None]:
    """Within this context an answerer that can do so caches the prefixes of the first questions for a second query.

    `unsure` marks (N,) those to cache by their probabilities (N, K). The answers are the same to rounding.
    """
    caching = getattr(answer, "caching_prefixes", None)
    return nullcontext() if caching is None else caching(unsure)


@dataclass(frozen=True)
class AnsweredOnce:
    """An answerer that asks its model for the same example once: asked again, it has taken no seconds."""

    answer: Answerer
    known: dict[str, list[tuple[Example, Any, int]]] = field(default_factory=dict)  # by id, with answers and its row

    def __call__(self, examples: Sequence[Example]) -> Any:
        places = [self._find(example) for example in examples]
        new = [example for example, place in zip(examples, places, strict=True) if place is None]
        if len(new) == len(examples):
            found = self.answer(examples)
            for row, example in enumerate(examples):
                self.known.setdefault(example.id, []).append((example, found, row))
            return found
        if new:
            self(new)
        both: list[Any] = [self._find(example) for example in examples]
        probs = np.array([found.probs[row] for found, row in both])
        seconds = np.array([found.columns["seconds"][row] for found, row in both])
        seconds[[place is not None for place in places]] = 0.0
        return LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": seconds})

    def _find(self, example: Example) -> tuple[Any, int] | None:
        """The answers that hold this example's, and its row there."""
        known = self.known.get(example.id, ())
        return next(((found, row) for asked, found, row in known if asked == example), None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.answer, name)


class Inference:
    """A way to query an answerer. It is frozen: `fitted` returns a copy that holds what was learned."""

    shows_pool: ClassVar[bool] = False  # True where `with_pool` must be called before the first query
    fits_dev: ClassVar[bool] = False  # True where `fitted` learns from the dev rows
    ask: Any = None  # the inner way of a wrapper, which hands on to it all that it does not do itself

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> Any:
        return answer(self.views(examples, ()))

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The examples as the model will see them; the best checkpoint is chosen on these."""
        return list(examples)

    def training_views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The examples as training shows them; `train` are those that a view may tell of, none of them held out."""
        return list(examples)

    def for_task(self, task: Any) -> "Inference":
        """A copy with what it takes from the task. Raises UserError where the task does not say it."""
        return replace(self, ask=self.ask.for_task(task)) if self.ask else self  # type: ignore[type-var]

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> "Inference":
        """A copy fitted on the fold's training and dev rows, never on its held-out rows."""
        return replace(self, ask=self.ask.fitted(train, dev, answer)) if self.ask else self  # type: ignore[type-var]

    def with_pool(self, examples: Sequence[Example]) -> "Inference":
        """A copy that takes demonstrations from these rows, where they are not part of its `state`."""
        return self

    def state(self) -> dict[str, Any]:
        """The values learned by `fitted`, ready for JSON; empty where nothing is learned."""
        return self.ask.state() if self.ask else {}

    def restored(self, state: Mapping[str, Any]) -> "Inference":
        """A copy with the saved `state` of a trained fold."""
        return replace(self, ask=self.ask.restored(state)) if self.ask else self  # type: ignore[type-var]


@dataclass(frozen=True)
class Once(Inference):
    """Query every example as it is."""


@dataclass(frozen=True)
class Replies(Inference):
    """Query each utterance of the assistant once, as the last of a window of at most `num_utterances`.

    The window does not depend on the training, so that variants can be compared.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts", "dialogues"})

    num_utterances: int = 4

    def __post_init__(self) -> None:
        if self.num_utterances < 2 or self.num_utterances % 2:
            raise UserError(f"inference.num_utterances={self.num_utterances}: expected an even number of at least 2")

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return replies(examples, self.num_utterances)
