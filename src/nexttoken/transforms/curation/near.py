"""Rows that nearly repeat an earlier one: a word or an ending changed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from nexttoken.data.near_duplicates import Sketches, jaccard, normalise, shared_keys, shingles, sketch
from nexttoken.errors import UserError
from nexttoken.transforms.curation.repeats import NotAgain
from nexttoken.transforms.curation.step import Fetch, Judge, Step
from nexttoken.transforms.curation.texts import texts_of, whole_text
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

MAX_CHARACTERS = 4_000  # of a row that are compared
MAX_FIRSTS = 16  # earlier rows of one key that a row is compared with: a form that thousands share stays linear
MARGIN = 0.18  # an estimate this much under the threshold is out: three standard deviations of 64 values
NUMBER = re.compile(r"\d+|[〇零一二三四五六七八九十百千万億兆]+")


@dataclass(frozen=True)
class DropNearDuplicates(Step):
    """Keeps the first of rows whose Jaccard similarity of character runs is at least `threshold`.

    Candidates share a band of MinHash values; each is verified exactly on the two texts, questions and answers
    together. Rows with different numbers are different ("2 + 3", "2 + 4"), and so are rows of fewer than `least` runs
    unless they are equal. Several questions about one long passage are different, too: where not the whole question is
    the same, the instructions, the inputs and the answers each have to be alike, by `each`.

    8 * `bands` + `bands` * `rows` bytes a row are held, texts only while they are compared.
    """

    surveys = True
    threshold: float = 0.75
    width: int = 3  # characters of a run
    least: int = 24
    each: float = 0.4
    bands: int = 16
    rows: int = 4

    def __post_init__(self) -> None:
        shares, counts = (self.threshold, self.each), (self.width, self.least, self.bands, self.rows)
        if not all(isinstance(value, int | float) for value in (*shares, *counts)):
            raise UserError(f"DropNearDuplicates: {shares} and {counts} are not all numbers; expected numbers")
        if not 0 < self.threshold <= 1 or not 0 <= self.each <= 1 or min(counts) < 1:
            raise UserError(
                f"DropNearDuplicates: threshold={self.threshold}, expected over 0 to 1; each={self.each}, expected"
                f" 0 to 1; width={self.width},"
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


def parts(example: Example) -> tuple[str, ...]:
    """What of two rows is compared with each other: what is asked, as texts of its own, and then what is answered."""
    fields = example.fields
    asked = [*(fields.get(name, ()) for name in (INSTRUCTION, INPUT)), fields.get(DIALOGUE, ())[0::2]]
    texts = ("\n".join(texts) for texts in (*asked, texts_of(example, "answered")))
    return tuple(normalise(text[:MAX_CHARACTERS]) for text in texts)


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
        row = self.fetch(position)
        text = compared(row)
        numbers, own = NUMBER.findall(text), shingles(text, self.step.width)
        for other in others:
            self.num_compared += 1
            example = self.fetch(other)
            text = compared(example)
            is_like = jaccard(own, shingles(text, self.step.width)) >= self.step.threshold
            if is_like and NUMBER.findall(text) == numbers and self._is_same_task(row, example):
                return example.id
        return ""

    def _is_same_task(self, row: Example, other: Example) -> bool:
        """Whether they ask the same, or are alike in every part: a long passage makes up for no other question."""
        pairs = list(zip(parts(row), parts(other), strict=True))
        if all(mine == its for mine, its in pairs[:-1]):
            return True
        width, least = self.step.width, self.step.each
        return all(mine == its or jaccard(shingles(mine, width), shingles(its, width)) >= least for mine, its in pairs)
