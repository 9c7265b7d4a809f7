"""Rows in a temporary file, read in order or by position, for sets larger than memory."""

import pickle
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from nexttoken.types import Example

MAX_BYTES = 8 << 20  # of rows that are judged at once; a row may be longer


@dataclass(frozen=True, slots=True)
class Packed:
    """Pickled rows one after another, their `lengths` in bytes, and the position of the first."""

    first: int
    data: bytes
    lengths: tuple[int, ...]

    def unpack(self) -> list[Example]:
        ends = list(accumulate(self.lengths, initial=0))
        view = memoryview(self.data)
        return [load(view[start:end]) for start, end in pairwise(ends)]


def pack(rows: Iterable[Example], first: int) -> Packed:
    return join([dump(row) for row in rows], first)


def join(packed: Sequence[bytes], first: int) -> Packed:
    return Packed(first, b"".join(packed), tuple(map(len, packed)))


def pack_by(rows: Iterable[Example], size: int) -> Iterator[Packed]:
    """Pack `size` rows at a time, fewer if they fill MAX_BYTES: long rows take no more memory than short ones."""
    packed: list[bytes] = []
    first = num_bytes = 0
    for row in rows:
        packed.append(dump(row))
        num_bytes += len(packed[-1])
        if len(packed) == size or num_bytes >= MAX_BYTES:
            yield join(packed, first)
            first, num_bytes, packed = first + len(packed), 0, []
    if packed:
        yield join(packed, first)


def dump(row: Example) -> bytes:
    """Pickle a row as a tuple, several times faster than the dataclass."""
    values = (row.id, dict(row.fields), row.label, row.num_options, dict(row.tags), row.demonstrations, row.round)
    return pickle.dumps((*values, row.answer), protocol=5)


def load(data: bytes | memoryview) -> Example:
    return Example(*pickle.loads(data))


class Spool:
    """A file of rows: append all, then read; `close` removes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends = array("q", [0])
        self._file: BinaryIO = path.open("w+b")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, packed: Packed) -> None:
        self._file.write(packed.data)
        for length in packed.lengths:
            self._ends.append(self._ends[-1] + length)

    def fetch(self, position: int) -> Example:
        start, end = self._ends[position], self._ends[position + 1]
        return load(self._read(start, end))

    def chunks(self, size: int) -> Iterator[Packed]:
        """Yield `size` packed rows at a time, fewer if they fill MAX_BYTES."""
        first = 0
        while first < len(self):
            full = bisect_left(self._ends, self._ends[first] + MAX_BYTES, lo=first + 1, hi=len(self._ends) - 1)
            ends = self._ends[first : min(full, first + size) + 1]
            lengths = tuple(end - start for start, end in pairwise(ends))
            yield Packed(first, self._read(ends[0], ends[-1]), lengths)
            first += len(lengths)

    def rows(self, size: int) -> Iterator[Example]:
        for packed in self.chunks(size):
            yield from packed.unpack()

    def close(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)
