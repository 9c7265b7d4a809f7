"""Rows that repeat an earlier one but for white space, punctuation and case."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from nexttoken.data.near_duplicates import normalise
from nexttoken.transforms.curation.counted import Drop
from nexttoken.transforms.curation.step import Fetch, Judge, Step
from nexttoken.transforms.curation.texts import SIDES, side_text
from nexttoken.types import Example


@dataclass(frozen=True)
class DropRepeats(Step):
    """Keeps the first of rows that are equal after `normalise`; 16 bytes a row are held."""

    surveys = True

    def survey(self, examples: Sequence[Example]) -> np.ndarray:
        """(N, 2) uint64: 128 bits of a hash of each row, so that no two rows share one by chance."""
        return np.frombuffer(b"".join(map(fingerprint, examples)), dtype=np.uint64).reshape(-1, 2)

    def judge(self, surveys: Iterable[np.ndarray], fetch: Fetch) -> Judge:
        prints = np.concatenate([np.empty((0, 2), dtype=np.uint64), *surveys])
        order = np.lexsort((np.arange(len(prints)), prints[:, 1], prints[:, 0]))
        ordered = prints[order]
        repeats = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)) + 1
        earlier: dict[int, int] = {}
        for place in repeats.tolist():
            before = int(order[place - 1])
            earlier[int(order[place])] = earlier.get(before, before)
        return NotAgain("repeats an earlier row", {row: fetch(first).id for row, first in earlier.items()})


def fingerprint(example: Example) -> bytes:
    sides = "\0".join(normalise(side_text(example, side)) for side in SIDES)
    return blake2b(sides.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class NotAgain:
    """Drops the rows at these positions; each knows the id of the earlier row that it resembles."""

    reason: str
    earlier: Mapping[int, str]

    def __call__(self, position: int, example: Example) -> Example | Drop:
        if position in self.earlier:
            return Drop(self.reason, self.earlier[position])
        return example
