"""Which rows begin alike: what they share is read once (one level of SGLang's radix tree, Zheng et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def is_worth_it(shared: int, num_rows: int, num_tokens: int, worth: float = WORTH) -> bool:
    """Whether rows of so many tokens together are read faster with their first `shared` ones read once."""
    return shared >= FEWEST and shared * (num_rows - 1) >= worth * num_tokens


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


def neighbours_alike(rows: Sequence[np.ndarray], worth: float = WORTH) -> list[Group]:
    """Part rows, in their order, into groups of neighbours that begin alike, where reading that once is worth it."""
    groups: list[Group] = []
    for number, row in enumerate(rows):
        joined = _join(groups[-1], number, rows, worth) if groups else None
        if joined is None:
            groups.append(Group([number], 0, len(row)))
        else:
            groups[-1] = joined
    return groups


def _join(group: Group, number: int, rows: Sequence[np.ndarray], worth: float) -> Group | None:
    row, first, size = rows[number], rows[group.members[0]], len(group.members)
    shared = min(group.shared or len(first) - 1, common_length(first, row), len(row) - 1)
    num_tokens = group.num_tokens + len(row)
    if shared * size < group.shared * (size - 1) or not is_worth_it(shared, size + 1, num_tokens, worth):
        return None
    group.members.append(number)
    return Group(group.members, shared, num_tokens)


def alike(rows: Sequence[np.ndarray]) -> list[Group]:
    """The same for rows in any order."""
    order = sorted(range(len(rows)), key=lambda number: rows[number][:LOOKED_AT].tobytes())
    found = neighbours_alike([rows[number] for number in order])
    return [Group([order[member] for member in group.members], group.shared, group.num_tokens) for group in found]
