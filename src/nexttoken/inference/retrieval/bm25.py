"""BM25 over a corpus: the words of a query that are rare in the corpus decide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from nexttoken.data import words as split
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.corpus import Corpus, PassageStore
from nexttoken.inference.retrieval.index import best, index_folder
from nexttoken.progress import Progress
from nexttoken.types import Passage


@dataclass(frozen=True)
class BM25:
    """The passages whose words score highest (Robertson and Zaragoza 2009, as Lucene computes it: k1 = 1.5, b = 0.75).

    The index is made at the first search and kept in `index_dir`, for this and later processes. A passage without a
    word of the query is no hit.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    corpus: str
    num_hits: int = 5
    index_dir: str = "output/index"
    passage_characters: int = 400

    def __post_init__(self) -> None:
        if self.num_hits < 1:
            raise UserError(f"retriever.num_hits={self.num_hits}, expected 1 or more")

    def check(self) -> None:
        """Raises UserError when there is no corpus: whoever is going to search calls this before anything is loaded."""
        Corpus(self.corpus, self.passage_characters)

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        corpus = Corpus(self.corpus, self.passage_characters)
        index = _open(corpus, self.index_dir, corpus.stamp)
        return [index.search(query, self.num_hits) for query in queries]


@dataclass(frozen=True)
class Index:
    """A loaded index and the passages that it counts."""

    scorer: Any  # bm25s.BM25, its arrays mapped from disk
    store: PassageStore

    def search(self, query: str, num_hits: int) -> list[Passage]:
        known = self.scorer.get_tokens_ids(split.words(query))
        if not known:
            return []
        scores = self.scorer.get_scores_from_ids(known)  # (N,)
        matched = np.flatnonzero(scores > 0)
        hits = matched[best(scores[matched], num_hits)]
        return [replace(self.store[number], score=float(scores[number])) for number in hits]


@lru_cache(maxsize=4)
def _open(corpus: Corpus, index_dir: str, stamp: object) -> Index:
    """One for all retrievers of this process; `stamp` tells a corpus that was changed from the one of before."""
    import bm25s

    settings = {"bm25s": version("bm25s"), "words": split.VERSION}
    folder = index_folder(corpus, index_dir, "bm25", settings, _build)
    try:
        return Index(bm25s.BM25.load(folder, mmap=True), PassageStore(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the index {folder} cannot be read ({error}); delete this folder, it is built again") from None


def _build(store: PassageStore) -> None:
    import bm25s

    vocabulary: dict[str, int] = {}
    with Progress(len(store), "index") as progress:
        numbers = [_number(store[place].text, vocabulary, progress) for place in range(len(store))]
    if not vocabulary:
        raise UserError("the corpus holds no word; expected passages of text")
    scorer = bm25s.BM25()
    scorer.index((numbers, vocabulary), create_empty_token=False, show_progress=False)
    scorer.save(store.folder, show_progress=False)


def _number(text: str, vocabulary: dict[str, int], progress: Progress) -> list[int]:
    progress.advance(1)
    return [vocabulary.setdefault(word, len(vocabulary)) for word in split.words(text)]
