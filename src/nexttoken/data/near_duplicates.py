"""Near-duplicate texts: MinHash finds candidate pairs (Broder 1997), the exact Jaccard similarity decides."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from nexttoken.progress import Progress

SHINGLE = 5  # characters, so that languages without spaces work; one changed word changes few shingles
MIN_SHINGLES = 40  # in shorter texts, one changed character may change the question ("2 + 3", "2 + 4")
MAX_CHARACTERS = 20_000  # of a text that are compared for similarity; equality is of the whole text
BANDS, ROWS = 25, 5  # a pair of similarity 0.8 shares a band with probability 1 - (1 - 0.8**5)**25 = 0.99995
CHUNK = 1_000  # texts per update of the progress line
CHUNK_CHARACTERS = 100_000  # hashed at once; the hashes fit into a CPU's cache

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Only sentence punctuation and white space: + - * / # < = > can change a question.
_PUNCTUATION = re.compile(r"""[\s\u200b-\u200f\ufeff.,;:!?'"()\[\]{}_`…‘’“”«»—–、。「」『』・]+""")


def normalise(text: str) -> str:
    """Apply NFKC and casefold, and make each run of white space and punctuation one space; "???" stays as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    return _PUNCTUATION.sub(" ", folded).strip() or folded


def group_ids(texts: Sequence[str], threshold: float = 0.8) -> np.ndarray:
    """Group number per text, (N,) int64: equal after `normalise`, or Jaccard similarity of shingles >= `threshold`.

    Similarity is transitive: a ~ b and b ~ c join all three. Texts of fewer than `MIN_SHINGLES` shingles are grouped
    only if equal. Numbers follow the sorted texts, so they do not depend on the order of `texts`.
    """
    normalised = [normalise(text) for text in texts]
    distinct = sorted(set(normalised))
    parents = list(range(len(distinct)))
    for first, second in _similar_pairs(distinct, threshold, parents):
        parents[_root(parents, second)] = _root(parents, first)
    roots = np.array([_root(parents, index) for index in range(len(distinct))], dtype=np.int64)
    numbers = np.unique(roots, return_inverse=True)[1]
    position = {text: index for index, text in enumerate(distinct)}
    return numbers[[position[text] for text in normalised]].astype(np.int64) if normalised else roots


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = index = parents[parents[index]]  # halve the path on the way
    return index


def _similar_pairs(texts: Sequence[str], threshold: float, parents: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the positions of similar texts; pairs that `parents` already joins are skipped."""
    texts = [text[:MAX_CHARACTERS] for text in texts]
    sketches = []
    with Progress(len(texts), "near-duplicates") as progress:
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            sketches.append(sketch(chunk, SHINGLE, BANDS, ROWS))
            progress.advance(len(chunk))

    @cache
    def shingles_of(position: int) -> np.ndarray:
        return shingles(texts[position], SHINGLE)

    earlier: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, keys in sorted(shared_keys(Sketches.join(sketches, BANDS, ROWS).keys).items()):
        if len(shingles_of(position)) < MIN_SHINGLES:
            continue
        for other in sorted({other for key in keys for other in earlier[key]}):
            is_joined = _root(parents, other) == _root(parents, position)
            if not is_joined and jaccard(shingles_of(other), shingles_of(position)) >= threshold:
                yield other, position
        for key in keys:
            earlier[key].append(position)


def shingles(text: str, width: int) -> np.ndarray:
    """Distinct uint32 hashes of every run of `width` characters, sorted; empty for a shorter text."""
    return np.unique(_hashes([text], width)[0])


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Similarity of two sets of sorted distinct hashes, 0 to 1."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(len(first) + len(second) - both, 1)


@dataclass(frozen=True, slots=True)
class Sketches:
    """Sketches of N texts: `keys` (N, bands) uint64, 0 for none; `values` (N, bands * rows) uint8, MinHash low bytes.

    Texts that share a band's key are candidates: with probability 1 - (1 - s**rows)**bands for Jaccard similarity s.
    The share of equal values estimates s, with a standard deviation of sqrt(s * (1 - s) / (bands * rows)).
    """

    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def join(cls, parts: Iterable["Sketches"], bands: int, rows: int) -> "Sketches":
        parts = list(parts)
        keys = [np.empty((0, bands), dtype=np.uint64), *(part.keys for part in parts)]
        values = [np.empty((0, bands * rows), dtype=np.uint8), *(part.values for part in parts)]
        return cls(np.concatenate(keys), np.concatenate(values))


def shared_keys(keys: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """Return the (band, key) pairs that a text shares with another, by the text's position; 0 is no key."""
    shared: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for band in range(keys.shape[1]):
        values, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        for position in np.flatnonzero((counts[inverse] > 1) & (keys[:, band] != 0)).tolist():
            shared[position].append((band, int(values[inverse[position]])))
    return shared


def sketch(texts: Sequence[str], width: int, bands: int, rows: int) -> Sketches:
    """Sketch the texts' runs of `width` characters; a shorter text has no key."""
    keys = np.zeros((len(texts), bands), dtype=np.uint64)
    values = np.zeros((len(texts), bands * rows), dtype=np.uint8)
    draws = np.random.default_rng(0).integers(1, 2**32, size=(bands * rows, 2), dtype=np.uint32)
    chunk = np.cumsum([0, *map(len, texts[:-1])]) // CHUNK_CHARACTERS
    for places in np.split(np.arange(len(texts)), np.flatnonzero(np.diff(chunk)) + 1):
        hashes, counts = _hashes([texts[place] for place in places], width)
        used = places[counts > 0]
        if not len(used):
            continue
        starts = np.concatenate([[0], np.cumsum(counts[counts > 0])[:-1]])
        for number, (flip, factor) in enumerate(draws):
            permuted = (hashes ^ flip) * (factor | np.uint32(1))  # wraps at 2**32: one order of all hashes
            least = np.minimum.reduceat(permuted, starts).astype(np.uint64)
            keys[used, number // rows] = _mix(keys[used, number // rows] ^ least)
            values[used, number] = _mix(least)  # the low byte
        keys[used] |= np.uint64(1)  # never 0
    return Sketches(keys, values)


def _hashes(texts: Sequence[str], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all texts' runs (sum of counts,) uint32, text by text, and each text's count (N,)."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    counts = np.maximum(lengths - width + 1, 0)
    if len(points) < width:
        return np.empty(0, dtype=np.uint32), np.zeros_like(counts)
    hashes = np.zeros(len(points) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = _mix(hashes ^ points[offset : offset + len(hashes)].astype(np.uint64))
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(points))  # characters to the text's end
    return (hashes >> np.uint64(32)).astype(np.uint32)[left[: len(hashes)] >= width], counts


def _mix(values: np.ndarray) -> np.ndarray:
    values = values * GOLDEN + GOLDEN
    return values ^ (values >> np.uint64(29))
