"""Which prompts go through the model together: batches filled by tokens, optimizer steps filled by ids."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nexttoken.engine.forward.prefixes import group_by_prefix
from nexttoken.engine.heads import Head
from nexttoken.prompts.label_tokens import LabelTokens


def token_batches(lengths: Sequence[int], batch_tokens: int, packs: bool = False) -> list[list[int]]:
    """Row indices by batch, longest first, with at most `batch_tokens` per batch (a single row may exceed it).

    Longest first keeps padding low and lets memory errors occur at the start.
    """
    return packed_batches(lengths, batch_tokens) if packs else padded_batches(lengths, batch_tokens)


def padded_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches with rows x longest row <= `batch_tokens`."""
    batches: list[list[int]] = []
    longest = 0
    for index in longest_first(lengths):
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = max(lengths[index], 1)
    return batches


def packed_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches whose lengths add up to at most `batch_tokens`.

    Best-fit decreasing: each row goes into the fullest batch that has space; at most 11/9 of the fewest batches
    (Johnson 1973).
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
            largest_first = sorted(range(number), key=lambda batch: -sizes[batch])
            return [batches[place] for place in largest_first if batches[place]]
        number += 1


def shared_batches(rows: Sequence[np.ndarray], batch_tokens: int, extra: int = 0) -> list[list[int]]:
    """Packed batches of token rows in which rows with a common prefix are neighbours and share it.

    Every row is followed by `extra` tokens. A group that does not fit into one batch is divided among several.
    """
    parts: list[tuple[list[int], int]] = []
    for group in group_by_prefix(rows):
        own = packed_batches([len(rows[n]) - group.shared + extra for n in group.members], batch_tokens - group.shared)
        chosen = ([group.members[place] for place in places] for places in own)
        parts += [(m, group.shared + sum(len(rows[n]) - group.shared + extra for n in m)) for m in chosen]
    batches = packed_batches([cost for _, cost in parts], batch_tokens)
    return [[row for part in batch for row in parts[part][0]] for batch in batches]


def longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@dataclass(frozen=True)
class Batcher:
    """Makes this rank's batches of some rows, as many as every other rank makes.

    Ranks that run out of rows get fillers, a row that counts for nothing: collective calls must be equal in number,
    or the processes wait for each other for ever.
    """

    head: Head
    labels: LabelTokens
    batch_tokens: int
    rank: int = 0
    num_ranks: int = 1
    packs: bool = False  # rows lie one behind the other, without padding
    at_once: int = 1  # batches that go through the model side by side

    def batches(self, rows: Sequence[Any]) -> list[Any]:
        lengths = [self.head.num_read(row, self.labels, self.packs) for row in rows]
        order = longest_first(lengths)
        shares = [self._pack(order[rank :: self.num_ranks], lengths) for rank in range(self.num_ranks)]
        own = [self._collate([rows[index] for index in batch]) for batch in shares[self.rank]]
        num_fillers = max(map(len, shares)) - len(own)
        return own + [self._collate([rows[order[-1]]]).filler] * num_fillers

    def _collate(self, rows: Sequence[Any]) -> Any:
        return self.head.collate(rows, self.labels, self.packs)

    def _pack(self, indices: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        own = [lengths[index] for index in indices]
        if self.packs and self.at_once > 1:
            packed = even_batches(own, self.batch_tokens, self.at_once)
        else:
            packed = token_batches(own, self.batch_tokens, self.packs)
        return [[indices[place] for place in batch] for batch in packed]


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: this rank's micro-batches, and what all ranks learn from together.

    The loss is a mean over `num_targets`: the rows, or, where answers are open, the tokens of their answers.
    """

    batches: list[Any]
    num_rows: int
    num_targets: int

    def to(self, device: torch.device) -> "Step":
        return Step([batch.to(device) for batch in self.batches], self.num_rows, self.num_targets)


class TrainSteps:
    """An endless-epoch loader whose order is a pure function of (seed, step), so that a resumed run continues exactly.

    Rows with the same id (both orders of a pair) always share a step, unless they are of different rounds (orders of a
    question's options): those follow each other, one round an epoch. `next_step` counts over all epochs; whoever
    resumes a run sets it.
    """

    def __init__(self, rows: Sequence[Any], batch_size: int, seed: int, batcher: Batcher) -> None:
        self.rows, self.batch_size, self.seed, self.batcher = rows, batch_size, seed, batcher
        by_id: dict[str, dict[int, list[int]]] = {}
        for index, row in enumerate(rows):
            by_id.setdefault(row.id, {}).setdefault(row.round, []).append(index)
        self.members = [[rounds[number] for number in sorted(rounds)] for rounds in by_id.values()]
        self.next_step = 0

    def __len__(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-len(self.members) // self.batch_size)

    def num_rows(self, num_epochs: int) -> int:
        """Rows that are shown in so many epochs."""
        return sum(len(own[epoch % len(own)]) for own in self.members for epoch in range(num_epochs))

    def __iter__(self) -> Iterator[Step]:
        epoch, first = divmod(self.next_step, len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.members))
        for step in range(first, len(self)):
            self.next_step += 1
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            rounds = (self.members[member] for member in chosen)
            rows = [self.rows[index] for own in rounds for index in own[epoch % len(own)]]
            yield Step(self.batcher.batches(rows), len(rows), sum(row.num_targets for row in rows))
