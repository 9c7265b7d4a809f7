"""Dense retrieval: the passages whose embeddings are nearest to the query's."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from nexttoken.data.packages import require
from nexttoken.inference.retrieval.corpus import Corpus, CorpusRetriever, PassageStore, best, open_index
from nexttoken.progress import Progress
from nexttoken.types import Passage

CHUNK = 256  # passages between two steps of the progress bar
BLOCK = 65536  # vectors compared at once: 100 MB of 384 numbers


@dataclass(frozen=True)
class Dense(CorpusRetriever):
    """Exact search by cosine over a model of sentence-transformers, a folder or a hub name.

    Some models expect a prefix before queries and another before passages; see their cards. Every query that is not
    blank has hits. Raises UserError at once without the package.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    model: str = field(kw_only=True)
    query_prefix: str = ""
    passage_prefix: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("retriever=dense", "sentence_transformers")

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        from nexttoken.engine.embeddings import embed, fingerprint

        hits: list[list[Passage]] = [[] for _ in queries]
        asked = [place for place, query in enumerate(queries) if query.strip()]
        if not asked:
            return hits
        corpus = Corpus(self.corpus, self.passage_characters)
        stamp = (corpus.stamp, fingerprint(self.model))
        vectors, store = _open(corpus, self.index_dir, self.model, self.passage_prefix, stamp)
        embedded = embed(self.model, [self.query_prefix + queries[place] for place in asked])
        for place, *found in zip(asked, *nearest(vectors, embedded, self.num_hits), strict=True):
            hits[place] = [replace(store[number], score=float(score)) for number, score in zip(*found, strict=True)]
        return hits


def nearest(vectors: np.ndarray, queries: np.ndarray, num_hits: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and scores (Q, num_hits) of the `vectors` (N, D) most similar to `queries` (Q, D), best first.

    Only one block of the vectors, and the best scores of each block, are in memory.
    """
    numbers, scores = [], []
    for start in range(0, len(vectors), BLOCK):
        block = queries @ vectors[start : start + BLOCK].T  # (Q, BLOCK)
        top = np.array([best(row, num_hits) for row in block])
        numbers.append(start + top)
        scores.append(np.take_along_axis(block, top, axis=1))
    top = np.array([best(row, num_hits) for row in np.hstack(scores)])
    return np.take_along_axis(np.hstack(numbers), top, axis=1), np.take_along_axis(np.hstack(scores), top, axis=1)


@lru_cache(maxsize=2)
def _open(
    corpus: Corpus, index_dir: str, model: str, prefix: str, stamp: tuple[object, str]
) -> tuple[np.ndarray, PassageStore]:
    """The vectors (N, D), mapped from disk, once for all retrievers; `stamp` changes with the corpus or the model."""
    from nexttoken.engine.embeddings import embed

    def build(store: PassageStore) -> None:
        vectors = None
        with Progress(len(store), "embed") as progress:
            for start in range(0, len(store), CHUNK):
                end = min(start + CHUNK, len(store))
                chunk = embed(model, [prefix + store[number].text for number in range(start, end)])
                if vectors is None:
                    path, shape = store.folder / "vectors.npy", (len(store), chunk.shape[1])
                    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                vectors[start:end] = chunk
                progress.advance(end - start)
        assert vectors is not None
        vectors.flush()

    settings = {"model": stamp[1], "prefix": prefix}
    return open_index(
        corpus, index_dir, "dense", settings, build, lambda folder: np.load(folder / "vectors.npy", mmap_mode="r")
    )
