"""Dense retrieval: the passages whose vectors are nearest to the query's, whatever their words are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import ClassVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.retrieval.corpus import Corpus, PassageStore
from nexttoken.inference.retrieval.index import best, index_folder
from nexttoken.progress import Progress
from nexttoken.types import Passage

CHUNK = 256  # passages between two steps of the progress bar
BLOCK = 65536  # vectors compared at once: 100 MB of 384 numbers


@dataclass(frozen=True)
class Dense:
    """Exact search by cosine over a model of sentence-transformers, a folder or a hub name.

    Some models expect a prefix before queries and another before passages; their cards say which. The vectors are made
    at the first search and kept in `index_dir`. Every query that is not blank has hits. Raises UserError at once when
    there is no package.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    corpus: str
    model: str
    num_hits: int = 5
    index_dir: str = "output/index"
    query_prefix: str = ""
    passage_prefix: str = ""
    passage_characters: int = 400

    def __post_init__(self) -> None:
        if self.num_hits < 1:
            raise UserError(f"retriever.num_hits={self.num_hits}, expected 1 or more")
        if find_spec("sentence_transformers") is None:
            raise UserError("retriever=dense needs the package sentence-transformers: pip install -e '.[dense]'")

    def check(self) -> None:
        """Raises UserError when there is no corpus: whoever is going to search calls this before anything is loaded."""
        Corpus(self.corpus, self.passage_characters)

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        from nexttoken.engine.embeddings import embed, fingerprint

        asked = [place for place, query in enumerate(queries) if query.strip()]
        hits: list[list[Passage]] = [[] for _ in queries]
        if not asked:
            return hits
        corpus = Corpus(self.corpus, self.passage_characters)
        index = _open(corpus, self.index_dir, self.model, self.passage_prefix, (corpus.stamp, fingerprint(self.model)))
        vectors = embed(self.model, [self.query_prefix + queries[place] for place in asked])
        for place, found in zip(asked, index.search(vectors, self.num_hits), strict=True):
            hits[place] = found
        return hits


@dataclass(frozen=True)
class Index:
    """The passages' vectors, mapped from disk, and the passages."""

    vectors: np.ndarray  # (N, D)
    store: PassageStore

    def search(self, queries: np.ndarray, num_hits: int) -> list[list[Passage]]:
        """Hits of each row of `queries` (Q, D); only a block of vectors, and a few scores, are in memory."""
        numbers = [np.empty(0, dtype=np.int64) for _ in queries]
        scores = [np.empty(0, dtype=np.float32) for _ in queries]
        for start in range(0, len(self.vectors), BLOCK):
            for row, found in enumerate(queries @ self.vectors[start : start + BLOCK].T):  # (Q, BLOCK)
                top = best(found, num_hits)
                numbers[row] = np.concatenate([numbers[row], start + top])
                scores[row] = np.concatenate([scores[row], found[top]])
        return [self._passages(*pair, num_hits) for pair in zip(numbers, scores, strict=True)]

    def _passages(self, numbers: np.ndarray, scores: np.ndarray, num_hits: int) -> list[Passage]:
        return [replace(self.store[numbers[i]], score=float(scores[i])) for i in best(scores, num_hits)]


@lru_cache(maxsize=2)
def _open(corpus: Corpus, index_dir: str, model: str, prefix: str, stamp: tuple[object, str]) -> Index:
    """One for all retrievers of this process; `stamp` tells a corpus or model that was changed from those of before."""

    def build(store: PassageStore) -> None:
        _embed_all(store, model, prefix)

    folder = index_folder(corpus, index_dir, "dense", {"model": stamp[1], "prefix": prefix}, build)
    try:
        return Index(np.load(folder / "vectors.npy", mmap_mode="r"), PassageStore(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"the index {folder} cannot be read ({error}); delete this folder, it is built again") from None


def _embed_all(store: PassageStore, model: str, prefix: str) -> None:
    from nexttoken.engine.embeddings import embed

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
