"""BM25 over a corpus: ranking by the query's words, rare words first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from nexttoken.data import words as split
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.corpus import (
    Corpus,
    CorpusRetriever,
    PassageStore,
    best,
    open_index,
    unreadable_index,
)
from nexttoken.progress import Progress
from nexttoken.types import Passage


@dataclass(frozen=True)
class BM25(CorpusRetriever):
    """The passages whose words score highest (Robertson and Zaragoza 2009, as in Lucene: k1 = 1.5, b = 0.75).

    A passage without a word of the query is no hit.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        corpus = Corpus(self.corpus, self.passage_characters)
        scorer, store = _open(corpus, self.index_dir, corpus.stamp)
        return [self._find(scorer, store, query) for query in queries]

    def _find(self, scorer: Any, store: PassageStore, query: str) -> list[Passage]:
        if not (word_ids := scorer.get_tokens_ids(split.words(query))):
            return []
        try:
            scores = scorer.get_scores_from_ids(word_ids)  # (N,)
        except Exception as error:  # a damaged index fails in many ways
            raise unreadable_index(store.folder, error) from None
        matched = np.flatnonzero(scores > 0)
        hits = matched[best(scores[matched], self.num_hits)]
        return [replace(store[number], score=float(scores[number])) for number in hits]


@lru_cache(maxsize=4)
def _open(corpus: Corpus, index_dir: str, stamp: object) -> tuple[Any, PassageStore]:
    """The index, mapped from disk, once for all retrievers of this process; `stamp` changes with the corpus."""
    import bm25s

    settings = {"bm25s": version("bm25s"), "words": split.VERSION}
    return open_index(corpus, index_dir, "bm25", settings, _build, lambda folder: bm25s.BM25.load(folder, mmap=True))


def _build(store: PassageStore) -> None:
    import bm25s

    vocabulary: dict[str, int] = {}
    word_ids = []
    with Progress(len(store), "index") as progress:
        for number in range(len(store)):
            words = split.words(store[number].text)
            word_ids.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
            progress.advance(1)
    if not vocabulary:
        raise UserError("the corpus holds no word; expected passages of text")
    scorer = bm25s.BM25()
    scorer.index((word_ids, vocabulary), create_empty_token=False, show_progress=False)
    scorer.save(store.folder, show_progress=False)
