"""Optimizer steps: the rows of each, this process's batches of them, the optimizer and its learning rate."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.batches import even_batches, longest_first, token_batches
from nexttoken.engine.heads import Head
from nexttoken.models.quantized import import_bitsandbytes
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import FitSettings

BETAS = (0.9, 0.98)
BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw_32bit": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}


@dataclass(frozen=True)
class Batcher:
    """Makes this rank's batches of some rows, in the same number as every other rank.

    A rank with fewer batches repeats a row that does not count: processes would wait forever for a missing call.
    """

    head: Head
    labels: LabelTokens
    batch_tokens: int
    rank: int = 0
    num_ranks: int = 1
    packs: bool = False  # rows are concatenated without padding
    at_once: int = 1  # batches computed in parallel

    def batches(self, rows: Sequence[Any]) -> list[Any]:
        lengths = [self.head.num_read(row, self.labels, self.packs) for row in rows]
        order = longest_first(lengths)
        shares = [self._pack(order[rank :: self.num_ranks], lengths) for rank in range(self.num_ranks)]
        num_fillers = max(map(len, shares)) - len(shares[self.rank])
        *batches, filler = [
            self.head.collate([rows[index] for index in batch], self.labels, self.packs)
            for batch in (*shares[self.rank], order[-1:])
        ]
        return batches + [filler.filler] * num_fillers

    def _pack(self, indices: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Batches of `indices` into all rows' `lengths`."""
        own = [lengths[index] for index in indices]
        if self.packs and self.at_once > 1:
            packed = even_batches(own, self.batch_tokens, self.at_once)
        else:
            packed = token_batches(own, self.batch_tokens, self.packs)
        return [[indices[place] for place in batch] for batch in packed]


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: this rank's micro-batches, and the numbers of rows and targets of all ranks together.

    The loss is a mean over the targets: the rows, or the tokens of open answers.
    """

    batches: list[Any]
    num_rows: int
    num_targets: int

    def to(self, device: torch.device) -> "Step":
        return Step([batch.to(device) for batch in self.batches], self.num_rows, self.num_targets)


@dataclass(frozen=True, slots=True)
class Course:
    """A training's numbers: optimizer steps, the first of them on texts, the seed, and batches computed in parallel."""

    num_steps: int
    seed: int
    at_once: int = 1
    num_text_steps: int = 0


class TrainSteps:
    """A loader whose order depends only on the seed and the step, so that a resumed run continues exactly.

    Rows with the same id (both orders of a pair) share a step, unless they are of different rounds (orders of a
    question's options), of which each epoch takes one. `next_step` counts over all epochs; set it to resume a run.
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

    def num_rows(self, num_steps: int) -> int:
        """Rows of the first `num_steps` optimizer steps."""
        num_epochs, rest = divmod(num_steps, len(self))
        whole = sum(len(own[epoch % len(own)]) for own in self.members for epoch in range(num_epochs))
        last = [self.members[member] for member in self._order(num_epochs)[: rest * self.batch_size]]
        return whole + sum(len(own[num_epochs % len(own)]) for own in last)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.members))

    def __iter__(self) -> Iterator[Step]:
        epoch, first = divmod(self.next_step, len(self))
        order = self._order(epoch)
        for step in range(first, len(self)):
            self.next_step += 1
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            rounds = (self.members[member] for member in chosen)
            rows = [self.rows[index] for own in rounds for index in own[epoch % len(own)]]
            yield Step(self.batcher.batches(rows), len(rows), sum(row.num_targets for row in rows))


def make_optimizer(settings: FitSettings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW by torch, or by bitsandbytes with 8-bit or paged states; norms and biases do not decay."""
    matrices, vectors = ([p for p in parameters if (p.ndim >= 2) == is_matrix] for is_matrix in (True, False))
    decays = ((matrices, settings.weight_decay), (vectors, 0.0))
    groups = [{"params": some, "weight_decay": decay} for some, decay in decays if some]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS)
    import_bitsandbytes()
    import bitsandbytes.optim

    return getattr(bitsandbytes.optim, BITSANDBYTES[settings.optimizer])(groups, lr=settings.learning_rate, betas=BETAS)


def learning_rate_factor(settings: FitSettings, num_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then linear or cosine decay to zero (or none), as a factor of the learning rate."""
    warmup = max(1, round(settings.warmup_fraction * num_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[settings.decay]

    return factor
