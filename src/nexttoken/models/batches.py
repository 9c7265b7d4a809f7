"""Which prompts go through the model together: batches filled by tokens, optimizer steps filled by ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nexttoken.models.heads import Head
from nexttoken.models.labels import LabelTokens
from nexttoken.models.packing import pack


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Partition row indices, longest first, so that rows x longest row <= `batch_tokens` (a lone row may exceed it).

    Sorting keeps padding low; longest first makes a memory error come at once instead of after an hour.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in longest_first(lengths):
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = max(lengths[index], 1)
    return batches


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
    pack_tokens: int = 0  # rows of open answers share sequences of so many tokens; 0: each has its own

    def batches(self, rows: Sequence[Any]) -> list[Any]:
        if self.pack_tokens:
            rows = pack(rows, self.pack_tokens)
        lengths = [self.head.num_read(row, self.labels) for row in rows]
        order = longest_first(lengths)
        shares = [self._pack(order[rank :: self.num_ranks], lengths) for rank in range(self.num_ranks)]
        own = [self.head.collate([rows[index] for index in batch], self.labels) for batch in shares[self.rank]]
        num_fillers = max(map(len, shares)) - len(own)
        return own + [self.head.collate([rows[order[-1]]], self.labels).filler] * num_fillers

    def _pack(self, indices: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        packed = token_batches([lengths[index] for index in indices], self.batch_tokens)
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
