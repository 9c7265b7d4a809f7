"""Which queries an example becomes, and which of the passages that they find it carries."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from nexttoken.errors import UserError
from nexttoken.models.processes import num_ranks
from nexttoken.types import OPTIONS, PASSAGES, QUESTION, Example, Passage, Retriever


@dataclass(frozen=True)
class Found:
    """Examples whose `passages` field holds what was found for them, best first."""

    examples: list[Example]
    counts: Mapping[str, int]  # num_queries, num_without_hits (examples), num_failed_queries
    seconds: np.ndarray  # (N,) each example's share of the time

    @property
    def summary(self) -> str:
        """`412 queries, 3 questions without a hit, 2 queries failed`."""
        failed = self.counts["num_failed_queries"]
        words = [f"{self.counts['num_queries']} queries", f"{self.counts['num_without_hits']} questions without a hit"]
        return ", ".join(words + [f"{failed} queries failed"] * bool(failed))


@dataclass(frozen=True)
class Search:
    """Asks `retriever` for the question, or, `per_option`, for the question with each of its options.

    A query that several examples share is asked once. Options' hits take turns, the first of each before any second;
    a text counts once; at most `num_passages` stay.
    """

    retriever: Retriever
    per_option: bool = False
    num_passages: int = 3

    def __post_init__(self) -> None:
        if self.num_passages < 1:
            raise UserError(
                f"num_passages={self.num_passages}, expected 1 or more; retriever=none searches for nothing"
            )
        if check := getattr(self.retriever, "check", None):
            check()  # before hours of training

    def find(self, examples: Sequence[Example]) -> Found:
        """Search for every example; of several processes the first one does, for all."""
        if num_ranks() == 1:
            return self._find(examples)
        from nexttoken.models.collective import from_first

        return from_first(lambda: self._find(examples))

    def _find(self, examples: Sequence[Example]) -> Found:
        start = time.monotonic()
        asked = [self.queries(example) for example in examples]
        unique = list(dict.fromkeys(query for queries in asked for query in queries))
        hits = dict(zip(unique, self.retriever.search(unique), strict=True)) if unique else {}
        failed: Collection[str] = getattr(self.retriever, "failed", frozenset())
        passages = [self._choose([hits[query] for query in queries]) for queries in asked]
        counts = {
            "num_queries": len(unique),
            "num_without_hits": sum(not texts for texts in passages),
            "num_failed_queries": sum(query in failed for query in unique),
        }
        return Found(
            [_with_passages(*pair) for pair in zip(examples, passages, strict=True)],
            counts,
            _shares(time.monotonic() - start, [len(queries) for queries in asked]),
        )

    def queries(self, example: Example) -> list[str]:
        """Each query of `example`; none for an example without text. Raises UserError where there is no question."""
        if QUESTION not in example.fields:
            raise UserError(
                f"row {example.id} has no question to search for; its fields are {', '.join(example.fields)}"
            )
        question = "\n".join(example.fields[QUESTION]).strip()
        options = example.fields.get(OPTIONS, ()) if self.per_option else ()
        queries = [f"{question} {option}".strip() for option in options if option.strip()] or [question]
        return list(dict.fromkeys(filter(None, queries)))

    def _choose(self, hits: Sequence[Sequence[Passage]]) -> tuple[str, ...]:
        turns = (passage.text for rank in zip_longest(*hits) for passage in rank if passage is not None)
        return tuple(dict.fromkeys(text for text in turns if text.strip()))[: self.num_passages]


def _with_passages(example: Example, texts: tuple[str, ...]) -> Example:
    return replace(example, fields={**example.fields, PASSAGES: texts})


def _shares(seconds: float, num_queries: Sequence[int]) -> np.ndarray:
    """The time by the number of queries; equal parts where there were none at all."""
    weights = np.array(num_queries, dtype=np.float64)
    if not weights.sum():
        weights = np.ones(len(num_queries))
    return seconds * weights / max(weights.sum(), 1.0)
