"""Common prefixes, which are computed once: of neighbours in a batch, and of the two prompts of an example in a gate.

Batches share one level of SGLang's radix tree (Zheng et al. 2024).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import psutil  # comes with peft
import torch

from nexttoken.engine.forward.packed_attention import KeyValues

MIN_SAVED_SHARE = 0.15  # of a group's tokens, because shorter calls have a cost, too
MIN_PREFIX_TOKENS = 32
SORTED_TOKENS = 128  # rows are sorted by this many first tokens
MEMORY_SHARE = 1 / 8  # of the machine's free memory for a PrefixCache; the caches of a GPU wait there, too


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


def _may_share(rows: Sequence[np.ndarray]) -> bool:
    """False where no two of the rows are long enough to share a prefix."""
    return sum(len(row) > MIN_PREFIX_TOKENS for row in rows) > 1


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
    if not _may_share(rows):
        return [Group([number], 0, len(row)) for number, row in enumerate(rows)]
    common = [min(common_length(one, other), len(one) - 1, len(other) - 1) for one, other in pairwise(rows)]
    ends, first = _best_ends(np.array(common, int)), 0
    groups: list[Group] = []
    while first < len(rows):
        members = range(first, ends[first])
        shared = min(common[first : members.stop - 1], default=0)
        groups.append(Group([*members], shared, sum(len(rows[number]) for number in members)))
        first = members.stop
    return groups


def _best_ends(common: np.ndarray) -> list[int]:
    """For each of N rows the end of the first group in the best division of this row and those after it.

    `common` (N - 1,): common prefix lengths of neighbours. Dynamic programming from the last row to the first.
    """
    num_rows = len(common) + 1
    saved, ends = np.zeros(num_rows + 1, int), [0] * num_rows
    for first in reversed(range(num_rows)):
        shared = np.minimum.accumulate(common[first:])  # with the next row, the next two ...
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
    if not _may_share(rows):
        return [Group([number], 0, len(row)) for number, row in enumerate(rows)]
    order = sorted(range(len(rows)), key=lambda number: rows[number][:SORTED_TOKENS].tobytes())
    groups = group_neighbours([rows[number] for number in order])
    return [Group([order[member] for member in group.members], group.shared, group.num_tokens) for group in groups]


class PrefixCache:
    """Keys and values, up to `num_bytes`, of the prompts whose probabilities (N, C) `unsure` marks (N,).

    A gate's second pass adds passages to them; if these follow the question, both prompts have a common prefix. Batches
    depend on the probabilities only, not on the free memory or on a journal, so they are always the same.
    """

    def __init__(self, unsure: Callable[[np.ndarray], np.ndarray], num_bytes: int | None = None) -> None:
        self.unsure = unsure
        self.free_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available) if num_bytes is None else num_bytes
        self.is_filled = False
        self._tokens: dict[str, list[np.ndarray]] = defaultdict(list)  # of unsure prompts, by id
        self._cached: dict[bytes, KeyValues] = {}

    def store(self, batch: Any, probs: np.ndarray) -> None:
        """Copy the keys and values of a batch's unsure prompts until one does not fit."""
        last = batch.reads[batch.places[:, 0, 0]].tolist()  # the last token of each prompt
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            tokens, segments = batch.rows[row].token_ids, batch.layout.segments
            size = len(tokens) * sum(part[:, :, :1].nbytes for pair in segments.saved.layers.values() for part in pair)
            if size > self.free_bytes:
                self.free_bytes = 0  # later batches store nothing
                return
            self.free_bytes -= size
            self._cached[tokens.tobytes()] = segments.saved_up_to(last[row]).to(torch.device("cpu"))

    def finish(self, prompts: Sequence[Any], probs: np.ndarray) -> None:
        """End the first pass: later prompts may begin like the unsure ones of these `prompts`."""
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            self._tokens[prompts[row].id].append(prompts[row].token_ids)
        self.is_filled = True

    def common_length(self, prompt: Any, shared: int = 0) -> int:
        """The prefix length in common with an unsure prompt of the same id; 0 if too little beyond `shared` tokens."""
        return self._nearest(prompt, shared)[0]

    def lookup(self, prompt: Any, shared: int = 0) -> KeyValues | None:
        """The cached keys and values of the common tokens, if they were stored."""
        common, tokens = self._nearest(prompt, shared)
        cached = self._cached.get(tokens.tobytes()) if common else None
        return cached and cached.first(common)

    def _nearest(self, prompt: Any, shared: int) -> tuple[int, np.ndarray]:
        """The length of the longest common prefix, 0 if not worth it, and the unsure prompt that has it."""
        row = prompt.token_ids
        pairs = [(min(common_length(row, other), len(row) - 1), other) for other in self._tokens.get(prompt.id, ())]
        common, tokens = max(pairs, key=lambda pair: pair[0], default=(0, row))
        return (common, tokens) if is_worth_it(common - shared, 2, len(row) - shared) else (0, tokens)
