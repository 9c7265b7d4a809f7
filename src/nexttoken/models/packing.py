"""Several rows in one sequence, with positions that start anew in each: no padding, and no row sees another.

Transformers reads restarted positions as the borders of a packed sequence and masks attention across them; its
variable-length flash attention computes nothing across them at all.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Rows one after the other: `token_ids`, `learnt`, `positions`, each (T,)."""

    id: str
    token_ids: np.ndarray
    learnt: np.ndarray
    positions: np.ndarray


def pack(rows: Sequence[Any], capacity: int) -> list[PackedRow]:
    """Fill sequences of at most `capacity` tokens, the longest row first into the one that it leaves the least room in.

    A row longer than that has a sequence of its own. (Best-fit decreasing: at most 11/9 of the fewest, Johnson 1973.)
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # tokens left and the sequence that has them, sorted
    for index in sorted(range(len(rows)), key=lambda i: (-len(rows[i].token_ids), i)):
        size = len(rows[index].token_ids)
        place = bisect_left(room, (size, 0))
        left, number = room.pop(place) if place < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(index)
        insort(room, (left - size, number))
    return [_packed([rows[index] for index in members]) for members in bins]


def _packed(rows: Sequence[Any]) -> PackedRow:
    learnt = [np.concatenate([[False], row.learnt[1:]]) for row in rows]  # a first token follows another row's last
    return PackedRow(
        ", ".join(row.id for row in rows),
        np.concatenate([row.token_ids for row in rows]),
        np.concatenate(learnt),
        np.concatenate([np.arange(len(row.token_ids)) for row in rows]),
    )
