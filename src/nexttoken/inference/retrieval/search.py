"""Search for examples: their queries, and the passages that each example gets."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import ClassVar

import numpy as np

from nexttoken.errors import UserError, refuse_below_one
from nexttoken.models.processes import from_first
from nexttoken.tasks.surrogates import replaced
from nexttoken.types import OPTIONS, PASSAGES, QUESTION, Example, Passage, Retriever


@dataclass(frozen=True)
class Nothing:
    """The retriever of a run without search: no passage for any query."""

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        return [[] for _ in queries]


@dataclass(frozen=True)
class Found:
    """Examples with their passages in the field `passages`, best first."""

    examples: list[Example]
    counts: Mapping[str, int]  # num_queries, num_without_hits (examples), num_failed_queries
    seconds: np.ndarray  # (N,) each example's share of the time

    @property
    def summary(self) -> str:
        """`412 queries, 3 questions without a hit, 2 queries failed`."""
        failed = self.counts["num_failed_queries"]
        summary = f"{self.counts['num_queries']} queries, {self.counts['num_without_hits']} questions without a hit"
        return f"{summary}, {failed} queries failed" if failed else summary


@dataclass(frozen=True)
class Search:
    """Searches with `retriever` for the question, or, `per_option`, for the question with each of its options.

    A query shared by several examples is sent once. Options' hits take turns, the first of each before any second;
    equal texts count once; at most `num_passages` stay.
    """

    retriever: Retriever
    per_option: bool = False
    num_passages: int = 3

    def __post_init__(self) -> None:
        if self.num_passages < 1:
            raise UserError(f"num_passages={self.num_passages}, expected 1 or more; retriever=none searches nothing")
        if check := getattr(self.retriever, "check", None):
            check()  # before hours of training

    def find(self, examples: Sequence[Example]) -> Found:
        """Search for every example; the first process searches for all."""
        return from_first(lambda: self._find(examples))

    def _find(self, examples: Sequence[Example]) -> Found:
        start = time.monotonic()
        queries = [self.queries(example) for example in examples]
        unique = list(dict.fromkeys(query for some in queries for query in some))
        hits = dict(zip(unique, self.retriever.search(unique), strict=True)) if unique else {}
        failed: Collection[str] = getattr(self.retriever, "failed", frozenset())
        passages = [self._choose([hits[query] for query in some]) for some in queries]
        counts = {
            "num_queries": len(unique),
            "num_without_hits": sum(not texts for texts in passages),
            "num_failed_queries": sum(query in failed for query in unique),
        }
        shares = np.array([len(some) for some in queries], dtype=np.float64)
        if not shares.any():
            shares += 1  # equal shares where there were no queries
        seconds = (time.monotonic() - start) * shares / max(shares.sum(), 1.0)
        pairs = zip(examples, passages, strict=True)
        return Found([replace(e, fields={**e.fields, PASSAGES: texts}) for e, texts in pairs], counts, seconds)

    def queries(self, example: Example) -> list[str]:
        """The queries of `example`; none for an example without text. Raises UserError where it has no question."""
        if QUESTION not in example.fields:
            raise UserError(f"row {example.id} has no question to search for, only {', '.join(example.fields)}")
        question = "\n".join(example.fields[QUESTION]).strip()
        options = example.fields.get(OPTIONS, ()) if self.per_option else ()
        queries = [f"{question} {option}".strip() for option in options if option.strip()] or [question]
        return list(dict.fromkeys(filter(None, queries)))

    def _choose(self, hits: Sequence[Sequence[Passage]]) -> tuple[str, ...]:
        turns = (replaced(passage.text) for rank in zip_longest(*hits) for passage in rank if passage is not None)
        return tuple(dict.fromkeys(text for text in turns if text.strip()))[: self.num_passages]


@dataclass(frozen=True)
class AddPassages:
    """Training examples with their passages; also without them in every `alone_every`-th round, or if none are found.

    A model that has seen both is unsure without a passage that it needs, and reads one that it is given. Questions that
    are shown alone too often are learned by heart instead.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"options"})

    search: Search
    alone_every: int = 4

    def __post_init__(self) -> None:
        refuse_below_one("alone_every", self.alone_every)

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        found = self.search.find(examples)
        if found.counts["num_without_hits"] < len(examples):
            print(f"passages for training rows: {found.summary}")
        shown = []
        for alone, example in zip(examples, found.examples, strict=True):
            has_passages = bool(example.fields.get(PASSAGES))
            shown += [example] * has_passages
            shown += [alone] * (not has_passages or alone.round % self.alone_every == 0)
        return shown
