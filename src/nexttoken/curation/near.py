"""Rows that nearly repeat an earlier one: a word or an ending changed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from nexttoken.curation.minhash import Sketches, jaccard, shingles, sketch
from nexttoken.curation.repeats import NotAgain
from nexttoken.curation.step import Fetch, Judge, Step
from nexttoken.curation.texts import whole_text
from nexttoken.errors import UserError
from nexttoken.splits import normalise
from nexttoken.types import Example

MAX_CHARACTERS = 4_000  # of a row that are compared
MAX_FIRSTS = 16  # earlier rows of one key that a row is compared with: a form that thousands share stays linear
MARGIN = 0.18  # an estimate this much under the threshold is out: three standard deviations of 64 values
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class DropNearDuplicates(Step):
    """Keeps the first of rows whose Jaccard similarity of character runs is at least `threshold`.

    Candidates share a band of MinHash values; each is verified exactly on the two texts, questions and answers
    together. Rows with different numbers are different ("2 + 3", "2 + 4"), and so are rows of fewer than `least` runs
    unless they are equal. 8 * `bands` + `bands` * `rows` bytes a row are held, texts only while they are compared.
    """

    surveys = True
    threshold: float = 0.75
    width: int = 3  # characters of a run
    least: int = 24
    bands: int = 16
    rows: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or min(self.width, self.least, self.bands, self.rows) < 1:
            raise UserError(
                f"DropNearDuplicates: threshold={self.threshold}, expected over 0 to 1; width={self.width},"
                f" least={self.least}, bands={self.bands}, rows={self.rows}, expected at least 1"
            )

    def survey(self, examples: Sequence[Example]) -> Sketches:
        """Keys are mixed with the row's numbers: rows with other numbers are no candidates."""
        texts = [compared(row) for row in examples]
        sketches = sketch(texts, self.width, self.bands, self.rows)
        numbers = np.array([crc32(" ".join(NUMBER.findall(text)).encode()) for text in texts], dtype=np.uint64)
        is_long = np.array([len(text) >= self.least + self.width - 1 for text in texts], dtype=bool)
        keys = np.where(is_long[:, None], sketches.keys ^ (numbers << np.uint64(1))[:, None], np.uint64(0))
        return Sketches(keys, sketches.values)

    def judge(self, surveys: Iterable[Sketches], fetch: Fetch) -> Judge:
        sketches = Sketches.join(surveys, self.bands, self.rows)
        search = Search(self, sketches.values, fetch)
        for position, shared in sorted(shared_keys(sketches.keys).items()):
            search.visit(position, shared)
        self.tally.notes |= {"num_compared": search.num_compared}
        return NotAgain("nearly repeats an earlier row", search.earlier)


def compared(example: Example) -> str:
    return normalise(whole_text(example)[:MAX_CHARACTERS])


def shared_keys(keys: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """(band, key) pairs by the position of each row that shares them with another; 0 is no key."""
    shared: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for band in range(keys.shape[1]):
        values, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        for position in np.flatnonzero((counts[inverse] > 1) & (keys[:, band] != 0)).tolist():
            shared[position].append((band, int(values[inverse[position]])))
    return shared


@dataclass
class Search:
    """Goes through the candidates in the rows' order; a row is compared with earlier rows that were kept."""

    step: DropNearDuplicates
    values: np.ndarray  # (N, bands * rows) uint8
    fetch: Fetch
    firsts: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    earlier: dict[int, str] = field(default_factory=dict)  # id of the row that a dropped one resembles
    num_compared: int = 0

    def visit(self, position: int, shared: Sequence[tuple[int, int]]) -> None:
        others = np.array(sorted({other for key in shared for other in self.firsts[key]}), dtype=np.int64)
        estimates = (self.values[others] == self.values[position]).mean(axis=1)
        likely = others[estimates >= self.step.threshold - MARGIN].tolist()
        if likely and (like := self._first_like(position, likely)):
            self.earlier[position] = like
            return
        for key in shared:
            if len(self.firsts[key]) < MAX_FIRSTS:
                self.firsts[key].append(position)

    def _first_like(self, position: int, others: Sequence[int]) -> str:
        text = compared(self.fetch(position))
        threshold, numbers, own = self.step.threshold, NUMBER.findall(text), shingles(text, self.step.width)
        for other in others:
            self.num_compared += 1
            example = self.fetch(other)
            text = compared(example)
            if NUMBER.findall(text) == numbers and jaccard(own, shingles(text, self.step.width)) >= threshold:
                return example.id
        return ""
