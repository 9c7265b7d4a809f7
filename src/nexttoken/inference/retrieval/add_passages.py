"""Training questions together with what retrieval finds for them, as they will be asked again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nexttoken.errors import UserError
from nexttoken.inference.retrieval.search import Search
from nexttoken.types import PASSAGES, Example


@dataclass(frozen=True)
class AddPassages:
    """Every question with its passages; in every `alone_every`-th round, and where nothing is found, without them.

    A model that has seen both is unsure without a passage that it needs, and reads one that it is given. Questions that
    are shown alone too often are learnt by heart instead, and passages are not read.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"options"})

    search: Search
    alone_every: int = 4

    def __post_init__(self) -> None:
        if self.alone_every < 1:
            raise UserError(f"alone_every={self.alone_every}: expected 1 (every epoch) or more")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        found = self.search.find(examples)
        if found.counts["num_without_hits"] < len(examples):
            print(f"passages for training rows: {found.summary}")
        return [row for pair in zip(examples, found.examples, strict=True) for row in self._shown(*pair)]

    def _shown(self, alone: Example, with_passages: Example) -> list[Example]:
        if not with_passages.fields.get(PASSAGES):
            return [alone]
        return [with_passages, alone] if alone.round % self.alone_every == 0 else [with_passages]
