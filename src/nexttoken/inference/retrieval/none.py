"""The retriever that finds nothing: what a run has that does not search."""

from collections.abc import Sequence
from dataclasses import dataclass

from nexttoken.types import Passage


@dataclass(frozen=True)
class Nothing:
    """No passage for any query."""

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        return [[] for _ in queries]
