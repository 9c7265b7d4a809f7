"""A file of tokenised examples that is mapped into memory, so that 60,000 rows take no more memory than 1,000.

It contains the rows' bytes, a table of the rows sorted by key, and the table's position. Each row and the table have a
checksum; damaged rows count as absent.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zlib import crc32

import numpy as np

KEY = np.dtype("S16")
PLACE = [("key", KEY), ("start", "<i8"), ("num_tokens", "<i4"), ("num_bytes", "<i4"), ("checksum", "<u4")]
MADE = [("num_disarmed", "<i4"), ("share_cut", "<f8"), ("was_cut", "?"), ("lost", "?"), ("has_learnt", "?")]
TABLE = np.dtype([*PLACE, *MADE])
END = struct.Struct("<8sQQI")  # magic, the table's position, its number of rows, its checksum
MAGIC = b"tokens 1"


@dataclass(frozen=True, slots=True)
class SavedText:
    """A row's text in a file, decoded on demand."""

    file: "TokenFile"
    place: int

    def __call__(self) -> str:
        return self.file.text(self.place)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One encoded example; `token_ids` (T,) int32 and `learnt` (T,) bool may be views into a file."""

    token_ids: np.ndarray
    text: str | SavedText
    learnt: np.ndarray | None = None
    was_cut: bool = False
    lost: bool = False  # options became equal by cutting, or the answer lost its end
    share_cut: float = 0.0
    num_disarmed: int = 0


@dataclass(frozen=True)
class TokenFile:
    """A mapped file: `data` (number of bytes,) uint8, and its `table` sorted by key."""

    data: np.ndarray
    table: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "TokenFile":
        """Map the file. Raises ValueError for another or a damaged file, OSError for an unreadable one."""
        data = np.asarray(np.memmap(path, np.uint8, mode="c"))  # writable, or torch warns
        if len(data) < END.size:
            raise ValueError(f"{path} is too short")
        magic, start, num_rows, checksum = END.unpack(data[-END.size :].tobytes())
        if magic != MAGIC or start + num_rows * TABLE.itemsize + END.size != len(data):
            raise ValueError(f"{path} is not a file of tokens")
        table = data[start : -END.size]
        if crc32(table.data) != checksum:
            raise ValueError(f"{path} is damaged")
        return cls(data, table.view(TABLE))

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Position of each key in the table, (N,); -1 if the key is absent or its row damaged."""
        if not len(self.table):
            return np.full(len(keys), -1)
        places = np.searchsorted(self.table["key"], keys).clip(max=len(self.table) - 1)
        places[self.table["key"][places] != keys] = -1
        for number in np.flatnonzero(places >= 0):
            row = self.table[places[number]]
            if crc32(self.data[row["start"] : row["start"] + row["num_bytes"]].data) != row["checksum"]:
                places[number] = -1
        return places

    def row(self, place: int) -> TokenRow:
        _, start, size, _, _, num_disarmed, share_cut, was_cut, lost, has_learnt = self.table[place].item()
        middle = start + 4 * size
        token_ids = self.data[start:middle].view("<i4")
        learnt = self.data[middle : middle + size].view(bool) if has_learnt else None
        return TokenRow(token_ids, SavedText(self, place), learnt, was_cut, lost, share_cut, num_disarmed)

    def text(self, place: int) -> str:
        """Text of the row, stored after its numbers."""
        _, start, size, num_bytes, *_, has_learnt = self.table[place].item()
        begin = start + 4 * size + size * has_learnt
        return self.data[begin : start + num_bytes].tobytes().decode("utf-8", "surrogatepass")


def write_rows(file: IO[bytes], rows: Iterator[tuple[bytes, TokenRow]]) -> None:
    """Write keyed rows one by one; only the table is held in memory."""
    lines, start = bytearray(), 0
    for key, row in rows:
        assert isinstance(row.text, str)
        data = row.token_ids.astype("<i4").tobytes()
        data += b"" if row.learnt is None else row.learnt.tobytes()
        data += row.text.encode("utf-8", "surrogatepass")
        made = (row.num_disarmed, row.share_cut, row.was_cut, row.lost, row.learnt is not None)
        lines += np.array((key, start, len(row.token_ids), len(data), crc32(data), *made), TABLE).tobytes()
        padding = -len(data) % 4  # aligns the next row's ids
        file.write(data + b"\0" * padding)
        start += len(data) + padding
    table = np.frombuffer(lines, TABLE)
    whole = table[np.argsort(table["key"])].tobytes()
    file.write(whole + END.pack(MAGIC, start, len(table), crc32(whole)))
