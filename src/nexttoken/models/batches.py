"""Which prompts go through the model together: batches filled by tokens, optimizer steps filled by ids."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Partition row indices, longest first, so that rows x longest row <= `batch_tokens` (a lone row may exceed it).

    Sorting keeps padding low; longest first makes a memory error come at once instead of after an hour.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = max(lengths[index], 1)
    return batches


class TrainSteps:
    """An endless-epoch loader whose order is a pure function of (seed, step), so that a resumed run continues exactly.

    One item is one optimizer step: a list of micro-batches. Rows with the same id (both orders of a pair) always share
    a step. `next_step` counts over all epochs; whoever resumes a run sets it.
    """

    def __init__(
        self, rows: Sequence[Any], batch_size: int, batch_tokens: int, seed: int, collate: Callable[[list[Any]], Any]
    ) -> None:
        self.rows, self.batch_size, self.batch_tokens, self.seed, self.collate = (
            rows,
            batch_size,
            batch_tokens,
            seed,
            collate,
        )
        by_id: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            by_id.setdefault(row.id, []).append(index)
        self.members = list(by_id.values())
        self.next_step = 0

    def __len__(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-len(self.members) // self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, first = divmod(self.next_step, len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.members))
        for step in range(first, len(self)):
            self.next_step += 1
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            rows = [self.rows[index] for member in chosen for index in self.members[member]]
            batches = token_batches([len(row.token_ids) for row in rows], self.batch_tokens)
            yield [self.collate([rows[index] for index in batch]) for batch in batches]
