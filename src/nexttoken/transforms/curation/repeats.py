"""Steps that drop rows that repeat an earlier row, exactly or nearly (another word or ending)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from zlib import crc32

import numpy as np

from nexttoken.data.near_duplicates import Sketches, jaccard, normalise, shared_keys, shingles, sketch
from nexttoken.data.row_faults import is_whole
from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import SIDES, Drop, Fetch, Judge, Step, Verdict, side_text, texts_of, whole_text
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

MAX_CHARACTERS = 4_000  # of a row that are compared
MAX_EARLIER = 16  # earlier rows of one key that a row is compared with: time stays linear if thousands are similar
MARGIN = 0.18  # three standard deviations of an estimate from 64 values; pairs below are not verified
NUMBER = re.compile(r"\d+|[〇零一二三四五六七八九十百千万億兆]+")


@dataclass(frozen=True)
class DropRepeats(Step):
    """Keeps the first of rows that differ only in width, case, white space and punctuation. Takes 16 bytes per row."""

    surveys = True

    def survey(self, examples: Sequence[Example]) -> np.ndarray:
        """Return (N, 2) uint64, a hash of 128 bits per row: two different rows do not share one by chance."""
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
    text = "\0".join(normalise(side_text(example, side)) for side in SIDES)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def drop_repeat(reason: str, earlier: Mapping[int, str], position: int, example: Example) -> Verdict:
    """Drop rows at the positions of `earlier`, whose values are the ids of the rows that they repeat."""
    return Drop(reason, earlier[position]) if position in earlier else example


@dataclass(frozen=True)
class DropNearDuplicates(Step):
    """Keeps the first of rows whose Jaccard similarity of character runs is at least `threshold`.

    Candidates share a band of MinHash values; each pair is verified on its texts, question and answer together. Rows
    with different numbers ("2 + 3", "2 + 4") are different, and so are rows of fewer than `least` runs. Different
    questions about one long passage are kept: unless the questions are equal, the instructions, the inputs and the
    answers must each have a similarity of at least `each`.

    Takes 8 * `bands` + `bands` * `rows` bytes per row, and texts only during their comparison.
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
        if not all(isinstance(share, int | float) for share in shares) or not all(map(is_whole, counts)):
            raise UserError(f"DropNearDuplicates: expected numbers, not {shares}, and whole numbers, not {counts}")
        if not 0 < self.threshold <= 1 or not 0 <= self.each <= 1 or min(counts) < 1:
            raise UserError(
                f"DropNearDuplicates: threshold={self.threshold}, expected over 0 to 1; each={self.each}, expected 0 to"
                f" 1; width={self.width}, least={self.least}, bands={self.bands}, rows={self.rows}, expected at least 1"
            )

    def survey(self, examples: Sequence[Example]) -> Sketches:
        """Sketch the rows with keys that include their numbers: rows with other numbers are not candidates."""
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
    """Return the instruction, the input, the user's turns and the answers, each normalised."""
    fields = example.fields
    asked = [*(fields.get(name, ()) for name in (INSTRUCTION, INPUT)), fields.get(DIALOGUE, ())[0::2]]
    texts = ("\n".join(texts) for texts in (*asked, texts_of(example, "answered")))
    return [normalise(text[:MAX_CHARACTERS]) for text in texts]


@dataclass
class Search:
    """Compares candidates in the rows' order, each with the earlier rows that are kept."""

    step: DropNearDuplicates
    values: np.ndarray  # (N, bands * rows) uint8
    fetch: Fetch
    kept: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))  # positions by key
    earlier: dict[int, str] = field(default_factory=dict)  # id of the earlier row, by the position of its repetition
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
        """Return the id of the first of `others` that the row repeats; "" if none."""
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
        """Return True if the questions are equal or all parts are similar: a long shared passage is not enough."""
        parts, others, width = compared_parts(row), compared_parts(other), self.step.width
        return parts[:-1] == others[:-1] or all(
            one == two or jaccard(shingles(one, width), shingles(two, width)) >= self.step.each
            for one, two in zip(parts, others, strict=True)
        )
