"""Which rows begin alike: what they share is read once (one level of SGLang's radix tree, Zheng et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

WORTH = 0.15  # of a group's tokens: what sharing has to save, for its shorter calls cost something as well
FEWEST = 32  # tokens of a prefix that is worth a call of its own
LOOKED_AT = 128  # tokens that decide which rows become neighbours


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """Tokens that two rows begin with alike."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size


def common_prefix(rows: Sequence[np.ndarray]) -> int:
    """Tokens that all rows begin with, if reading them once is worth it, else 0; each row keeps one of its own."""
    if len(rows) < 2:
        return 0
    shared = min(len(row) for row in rows) - 1
    for row in rows[1:]:
        if shared < FEWEST:
            return 0
        shared = min(shared, common_length(rows[0], row))
    return shared if is_worth_it(shared, len(rows), sum(map(len, rows))) else 0


def is_worth_it(shared: int, num_rows: int, num_tokens: int) -> bool:
    """Whether rows of so many tokens together are read faster with their first `shared` ones read once."""
    return shared >= FEWEST and shared * (num_rows - 1) >= WORTH * num_tokens


@dataclass(frozen=True, slots=True)
class Group:
    """Rows by number, of `num_tokens` together, and how many tokens they begin with alike (0 for a lone row)."""

    members: list[int]
    shared: int
    num_tokens: int

    @property
    def cost(self) -> int:
        """Tokens that go through the model."""
        return self.num_tokens - self.shared * (len(self.members) - 1)


def fewest_tokens(rows: Sequence[np.ndarray]) -> list[Group]:
    """Part rows, in their order, into groups of neighbours that begin alike, so that the fewest tokens are read.

    No other parting of them reads fewer: a batch of groups that were planned never grows beyond the plan.
    """
    alike = [min(common_length(one, other), len(one) - 1, len(other) - 1) for one, other in pairwise(rows)]
    ends, first = _best_ends(np.array(alike, int)), 0
    groups: list[Group] = []
    while first < len(rows):
        end = ends[first]
        num_tokens = sum(len(row) for row in rows[first:end])
        groups.append(Group(list(range(first, end)), min(alike[first : end - 1], default=0), num_tokens))
        first = end
    return groups


def _best_ends(alike: np.ndarray) -> list[int]:
    """Where the group ends that each of N rows begins, in the best parting of the rows from it on.

    `alike` (N - 1,) are the tokens that each row shares with the next one. Found from the last row to the first.
    """
    num_rows = len(alike) + 1
    saved, ends = np.zeros(num_rows + 1, int), [0] * num_rows
    for first in reversed(range(num_rows)):
        shared = np.minimum.accumulate(alike[first:])  # by this row and the next, and the one after that ...
        own = np.where(shared < FEWEST, 0, shared) * np.arange(1, num_rows - first)
        gains = np.append(0, own) + saved[first + 1 :]
        best = int(gains.argmax())
        saved[first], ends[first] = gains[best], first + 1 + best
    return ends


def neighbours_alike(rows: Sequence[np.ndarray]) -> list[Group]:
    """Part rows, in their order, into groups of neighbours that begin alike, where reading that once is worth it."""
    groups: list[Group] = []
    for number, row in enumerate(rows):
        joined = _join(groups[-1], number, rows) if groups else None
        if joined is None:
            groups.append(Group([number], 0, len(row)))
        else:
            groups[-1] = joined
    return groups


def _join(group: Group, number: int, rows: Sequence[np.ndarray]) -> Group | None:
    row, first, size = rows[number], rows[group.members[0]], len(group.members)
    shared = min(group.shared or len(first) - 1, common_length(first, row), len(row) - 1)
    num_tokens = group.num_tokens + len(row)
    if shared * size < group.shared * (size - 1) or not is_worth_it(shared, size + 1, num_tokens):
        return None
    group.members.append(number)
    return Group(group.members, shared, num_tokens)


def alike(rows: Sequence[np.ndarray]) -> list[Group]:
    """The same for rows in any order."""
    order = sorted(range(len(rows)), key=lambda number: rows[number][:LOOKED_AT].tobytes())
    found = neighbours_alike([rows[number] for number in order])
    return [Group([order[member] for member in group.members], group.shared, group.num_tokens) for group in found]
