"""Steps that drop rows which repeat an earlier one, exactly or nearly: a word or an ending changed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from zlib import crc32

import numpy as np

from nexttoken.data.near_duplicates import Sketches, jaccard, normalise, shared_keys, shingles, sketch
from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import (
    SIDES,
    Drop,
    Fetch,
    Judge,
    Step,
    Verdict,
    side_text,
    texts_of,
    whole_text,
)
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

MAX_CHARACTERS = 4_000  # of a row that are compared
MAX_EARLIER = 16  # earlier rows of one key that a row is compared with: time stays linear if thousands share a form
MARGIN = 0.18  # three standard deviations of an estimate from 64 values; lower estimates are not verified
NUMBER = re.compile(r"\d+|[〇零一二三四五六七八九十百千万億兆]+")


@dataclass(frozen=True)
class DropRepeats(Step):
    """Keeps the first of rows that are equal but for width, case, white space and punctuation; holds 16 bytes a row."""

    surveys = True

    def survey(self, examples: Sequence[Example]) -> np.ndarray:
        """(N, 2) uint64: a hash of 128 bits per row, so that different rows never share one by chance."""
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
        ids = {row: fetch(first).id for row, first in earlier.items()}
        return partial(drop_repeat, "repeats an earlier row", ids)


def fingerprint(example: Example) -> bytes:
    sides = "\0".join(normalise(side_text(example, side)) for side in SIDES)
    return blake2b(sides.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def drop_repeat(reason: str, earlier: Mapping[int, str], position: int, example: Example) -> Verdict:
    """Drop the rows at the positions of `earlier`, which has the id of the row that each resembles."""
    return Drop(reason, earlier[position]) if position in earlier else example


@dataclass(frozen=True)
class DropNearDuplicates(Step):
    """Keeps the first of rows whose Jaccard similarity of character runs is at least `threshold`.

    Candidates share a band of MinHash values; each is verified exactly on the two texts, questions and answers
    together. Rows with different numbers are different ("2 + 3", "2 + 4"). Rows of fewer than `least` runs repeat each
    other only if equal. Several questions about one long passage are different, too: unless the whole question is
    equal, the instructions, the inputs and the answers must each have a similarity of `each`.

    Holds 8 * `bands` + `bands` * `rows` bytes a row, and texts only while they are compared.
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
                f" 0 to 1; width={self.width}, least={self.least}, bands={self.bands}, rows={self.rows}, expected at"
                " least 1"
            )

    def survey(self, examples: Sequence[Example]) -> Sketches:
        """Sketches whose keys contain the row's numbers: rows with other numbers are no candidates."""
        texts = [compared_text(row) for row in examples]
        sketches = sketch(texts, self.width, self.bands, self.rows)
        numbers = np.array([crc32(" ".join(NUMBER.findall(text)).encode()) for text in texts], dtype=np.uint64)
        is_long = np.array([len(text) >= self.least + self.width - 1 for text in texts], dtype=bool)
        keys = np.where(is_long[:, None], sketches.keys ^ (numbers << np.uint64(1))[:, None], np.uint64(0))
        return Sketches(keys, sketches.values)

    def judge(self, surveys: Iterable[Sketches], fetch: Fetch) -> Judge:
        sketches = Sketches.join(surveys, self.bands, self.rows)
        search = Search(self, sketches.values, fetch)
        for position, keys in sorted(shared_keys(sketches.keys).items()):
            search.visit(position, keys)
        self.tally.notes |= {"num_compared": search.num_compared}
        return partial(drop_repeat, "nearly repeats an earlier row", search.earlier)


def compared_text(example: Example) -> str:
    return normalise(whole_text(example)[:MAX_CHARACTERS])


def compared_parts(example: Example) -> list[str]:
    """The instruction, the input, the user's turns, and last the answered texts, normalised."""
    fields = example.fields
    asked = [*(fields.get(name, ()) for name in (INSTRUCTION, INPUT)), fields.get(DIALOGUE, ())[0::2]]
    texts = ("\n".join(texts) for texts in (*asked, texts_of(example, "answered")))
    return [normalise(text[:MAX_CHARACTERS]) for text in texts]


@dataclass
class Search:
    """Compares candidates in the rows' order, each with earlier rows that stay."""

    step: DropNearDuplicates
    values: np.ndarray  # (N, bands * rows) uint8
    fetch: Fetch
    kept: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))  # positions by key
    earlier: dict[int, str] = field(default_factory=dict)  # id of the row that a dropped one resembles
    num_compared: int = 0

    def visit(self, position: int, keys: Sequence[tuple[int, int]]) -> None:
        others = np.array(sorted({other for key in keys for other in self.kept[key]}), dtype=np.int64)
        estimates = (self.values[others] == self.values[position]).mean(axis=1)
        likely = others[estimates >= self.step.threshold - MARGIN].tolist()
        if likely and (similar := self._first_similar(position, likely)):
            self.earlier[position] = similar
            return
        for key in keys:
            if len(self.kept[key]) < MAX_EARLIER:
                self.kept[key].append(position)

    def _first_similar(self, position: int, others: Sequence[int]) -> str:
        """Id of the first of `others` that the row repeats; "" if none."""
        row = self.fetch(position)
        text = compared_text(row)
        numbers, runs = NUMBER.findall(text), shingles(text, self.step.width)
        for other in others:
            self.num_compared += 1
            example = self.fetch(other)
            text = compared_text(example)
            is_similar = jaccard(runs, shingles(text, self.step.width)) >= self.step.threshold
            if is_similar and NUMBER.findall(text) == numbers and self._is_same_task(row, example):
                return example.id
        return ""

    def _is_same_task(self, row: Example, other: Example) -> bool:
        """True if all of the question is equal, or every part is similar: a long shared passage is not enough."""
        pairs = list(zip(compared_parts(row), compared_parts(other), strict=True))
        if all(one == two for one, two in pairs[:-1]):
            return True
        width = self.step.width
        return all(
            one == two or jaccard(shingles(one, width), shingles(two, width)) >= self.step.each for one, two in pairs
        )
