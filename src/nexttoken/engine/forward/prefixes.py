"""Groups of rows with a common prefix, which is computed once (one level of SGLang's radix tree, Zheng et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MIN_SAVED_SHARE = 0.15  # of a group's tokens, because shorter calls have a cost, too
MIN_PREFIX_TOKENS = 32
SORTED_TOKENS = 128  # rows are sorted by this many first tokens


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """The length of the common prefix of two rows."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size


def common_prefix(rows: Sequence[np.ndarray]) -> int:
    """The length of the common prefix of all rows, leaving each at least one token; 0 if sharing does not pay."""
    if len(rows) < 2:
        return 0
    shared = min(len(row) for row in rows) - 1
    for row in rows[1:]:
        if shared < MIN_PREFIX_TOKENS:
            return 0
        shared = min(shared, common_length(rows[0], row))
    return shared if is_worth_it(shared, len(rows), sum(map(len, rows))) else 0


def is_worth_it(shared: int, num_rows: int, num_tokens: int) -> bool:
    """True if rows of `num_tokens` in all are computed faster when their first `shared` tokens are computed once."""
    return shared >= MIN_PREFIX_TOKENS and shared * (num_rows - 1) >= MIN_SAVED_SHARE * num_tokens


@dataclass(frozen=True, slots=True)
class Group:
    """Row numbers, the length of their common prefix (0 for a single row), and their tokens in all."""

    members: list[int]
    shared: int
    num_tokens: int

    @property
    def cost(self) -> int:
        """Tokens that go through the model, the common prefix once."""
        return self.num_tokens - self.shared * (len(self.members) - 1)


def fewest_tokens(rows: Sequence[np.ndarray]) -> list[Group]:
    """Divide rows, in their order, into groups of neighbours such that the fewest tokens go through the model.

    The division is optimal, so a batch never needs more tokens than it was planned with.
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
    """For each of N rows the end of the group that it begins in the best division of the rows from there on.

    `alike` (N - 1,) are common prefix lengths of neighbours. Dynamic programming from the last row to the first.
    """
    num_rows = len(alike) + 1
    saved, ends = np.zeros(num_rows + 1, int), [0] * num_rows
    for first in reversed(range(num_rows)):
        shared = np.minimum.accumulate(alike[first:])  # with the next row, the next two ...
        gained = np.where(shared < MIN_PREFIX_TOKENS, 0, shared) * np.arange(1, num_rows - first)
        gains = np.append(0, gained) + saved[first + 1 :]
        best = int(gains.argmax())
        saved[first], ends[first] = gains[best], first + 1 + best
    return ends


def group_neighbours(rows: Sequence[np.ndarray]) -> list[Group]:
    """Divide rows, in their order, greedily into groups of neighbours whose common prefix is worth sharing."""
    groups: list[Group] = []
    for number, row in enumerate(rows):
        group = groups[-1] if groups else Group([], 0, 0)
        first, size, num_tokens = rows[number - len(group.members)], len(group.members), group.num_tokens + len(row)
        shared = min(group.shared or len(first) - 1, common_length(first, row), len(row) - 1) if size else 0
        if shared * size >= group.shared * (size - 1) and is_worth_it(shared, size + 1, num_tokens):
            group.members.append(number)
            groups[-1] = Group(group.members, shared, num_tokens)
        else:
            groups.append(Group([number], 0, len(row)))
    return groups


def group_by_prefix(rows: Sequence[np.ndarray]) -> list[Group]:
    """Groups of rows in any order whose common prefix is worth sharing."""
    order = sorted(range(len(rows)), key=lambda number: rows[number][:SORTED_TOKENS].tobytes())
    groups = group_neighbours([rows[number] for number in order])
    return [Group([order[member] for member in group.members], group.shared, group.num_tokens) for group in groups]
