"""MinHash by chunks: which rows may be near-duplicates, found without comparing every pair (Broder 1997)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str, width: int) -> np.ndarray:
    """Distinct uint32 hashes of every run of `width` characters, sorted; empty for a shorter text."""
    hashes, _ = _hashes([text], width)
    return np.unique(hashes)


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of N rows: `keys` (N, bands) uint64, 0 is none; `values` (N, bands * rows) uint8, the MinHash values' low bytes.

    Rows that share the key of a band are candidates: of Jaccard similarity s with probability 1 - (1 - s**rows)**bands.
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


def sketch(texts: Sequence[str], width: int, bands: int, rows: int) -> Sketches:
    """Sketches of the texts' runs of `width` characters; a text without one has no key."""
    hashes, counts = _hashes(texts, width)
    keys = np.zeros((len(texts), bands), dtype=np.uint64)
    values = np.zeros((len(texts), bands * rows), dtype=np.uint8)
    used = np.flatnonzero(counts)
    if not len(used):
        return Sketches(keys, values)
    starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
    draws = np.random.default_rng(0).integers(1, 2**32, size=(bands * rows, 2), dtype=np.uint32)
    for number, (flip, factor) in enumerate(draws):
        permuted = (hashes ^ flip) * (factor | np.uint32(1))  # wraps at 2**32: one order of all hashes
        least = np.minimum.reduceat(permuted, starts).astype(np.uint64)
        keys[used, number // rows] = _mix(keys[used, number // rows] ^ least)
        values[used, number] = _mix(least)  # its low byte
    keys[used] |= np.uint64(1)  # never 0
    return Sketches(keys, values)


def _mix(values: np.ndarray) -> np.ndarray:
    values = values * GOLDEN + GOLDEN
    return values ^ (values >> np.uint64(29))


def _hashes(texts: Sequence[str], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (sum of counts,) uint32 of all texts' runs, one text behind the other, and how many each has (N,)."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    counts = np.maximum(lengths - width + 1, 0)
    if len(points) < width:
        return np.empty(0, dtype=np.uint32), np.zeros_like(counts)
    hashes = np.zeros(len(points) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = _mix(hashes ^ points[offset : offset + len(hashes)].astype(np.uint64))
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(points))  # characters up to the text's end
    return (hashes >> np.uint64(32)).astype(np.uint32)[left[: len(hashes)] >= width], counts


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Similarity of two sets of sorted distinct hashes, 0 to 1."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(len(first) + len(second) - both, 1)
