"""Training questions together with what retrieval finds for them, as they will be asked again."""

from collections.abc import Sequence
from dataclasses import dataclass

from nexttoken.prompts import PASSAGES
from nexttoken.retrieval.search import Search
from nexttoken.types import Example


@dataclass(frozen=True)
class AddPassages:
    """Every question as it is and, where something is found, with passages: under one id, in one optimizer step.

    A model that has seen both is unsure without a passage that it needs, and reads one that it is given.
    """

    search: Search

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        found = self.search.find(examples).examples
        return [
            row
            for example, with_passages in zip(examples, found, strict=True)
            for row in (example, with_passages)[: 1 + bool(with_passages.fields.get(PASSAGES))]
        ]
