"""Short branches behind one shared beginning, such as a row's candidates, whose attention goes in one kernel call.

A branch attends to the shared beginning and to itself. On a CPU a call for each branch costs more than the pairs of
different branches, which are computed here and masked, and it copies the beginning's keys for each.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

MAX_TOKENS = 96  # of the branches in one call: pairs of different branches are computed for nothing


def branch_groups(lengths: Sequence[int], beginnings: Sequence[Any]) -> Iterator[range]:
    """Consecutive segments that go in one call: those of one beginning (None: of no shared one) with few tokens."""
    for beginning, same in groupby(range(len(lengths)), beginnings.__getitem__):
        first, total = None, 0
        for number in same:
            total += lengths[number]
            if first is not None and (beginning is None or total > MAX_TOKENS):
                yield range(first, number)
                first, total = None, lengths[number]
            first = number if first is None else first
        if first is not None:
            yield range(first, number + 1)


def branch_places(start: int, branches: Sequence[tuple[int, Sequence[int]]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the queries among the keys, and where their branches start, of consecutive branches from `start`.

    Each branch is given by its number of tokens and the queried ones, counted from its own start.
    """
    starts = accumulate((length for length, _ in branches), initial=start)
    flat = [(begin + place, begin) for begin, (_, queried) in zip(starts, branches, strict=False) for place in queried]
    places, begins = zip(*flat, strict=True)
    return places, begins


def branch_mask(places: Sequence[int], starts: Sequence[int], num_keys: int, window: int | None) -> Tensor:
    """(queries, keys), True for allowed pairs: the keys before the first branch, then the branches' own.

    places: of the queries among the keys; starts: of their branches. window: limits attention to the last tokens.
    """
    at, start, key = torch.tensor(places)[:, None], torch.tensor(starts)[:, None], torch.arange(num_keys)[None]
    own, shared = (key >= start) & (key <= at), key < starts[0]
    if window is None:
        return own | shared
    return own & (key > at - window) | shared & (key > starts[0] + at - start - window)
