"""Batches of prompts, filled by their number of tokens."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from nexttoken.engine.forward.prefixes import group_by_prefix


def token_batches(lengths: Sequence[int], batch_tokens: int, packs: bool = False) -> list[list[int]]:
    """Row indices by batch, longest first, with at most `batch_tokens` per batch (a single row may exceed it).

    Padding counts. Longest first keeps it low and lets memory errors occur at the start.
    """
    if packs:
        return packed_batches(lengths, batch_tokens)
    batches: list[list[int]] = []
    for index in longest_first(lengths):
        if batches and (len(batches[-1]) + 1) * max(lengths[batches[-1][0]], 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def packed_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches whose lengths add up to at most `batch_tokens`.

    Best-fit decreasing (Johnson 1973): each row goes into the fullest batch that has space.
    """
    batches: list[list[int]] = []
    space: list[tuple[int, int]] = []  # tokens left and the batch that has them, sorted
    for index in longest_first(lengths):
        place = bisect_left(space, (lengths[index], 0))
        left, number = space.pop(place) if place < len(space) else (batch_tokens, len(batches))
        if number == len(batches):
            batches.append([])
        batches[number].append(index)
        insort(space, (left - lengths[index], number))
    return batches


def even_batches(lengths: Sequence[int], batch_tokens: int, multiple: int) -> list[list[int]]:
    """Packed batches of similar size, in the smallest number that is a multiple of `multiple`, largest first.

    Parallel batches then end at the same time. Each row goes to the smallest batch, longest rows first (Graham 1969).
    """
    number = len(packed_batches(lengths, batch_tokens))
    while True:
        number = -(-number // multiple) * multiple
        batches: list[list[int]] = [[] for _ in range(number)]
        sizes = [0] * number
        for index in longest_first(lengths):
            smallest = sizes.index(min(sizes))
            batches[smallest].append(index)
            sizes[smallest] += lengths[index]
        if all(size <= batch_tokens or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True)):
            return [batches[place] for place in longest_first(sizes) if batches[place]]
        number += 1


def shared_batches(rows: Sequence[np.ndarray], batch_tokens: int, extra: int = 0) -> list[list[int]]:
    """Packed batches of token rows in which rows with a common prefix are neighbours and share it.

    Every row is followed by `extra` tokens. A group that does not fit into one batch is divided among several.
    """
    parts: list[tuple[list[int], int]] = []
    for group in group_by_prefix(rows):
        if not group.shared:
            parts += [([n], len(rows[n]) + extra) for n in group.members]
            continue
        lengths = [len(rows[n]) - group.shared + extra for n in group.members]
        for places in packed_batches(lengths, batch_tokens - group.shared):
            cost = group.shared + sum(lengths[place] for place in places)
            parts.append(([group.members[place] for place in places], cost))
    batches = packed_batches([cost for _, cost in parts], batch_tokens)
    return [[row for part in batch for row in parts[part][0]] for batch in batches]


def longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])
