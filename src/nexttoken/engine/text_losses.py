"""Losses of texts: next-token cross-entropy at the tokens of open answers only, or of whole prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.layout import Layout, Pieces
from nexttoken.engine.forward.output_head import token_losses
from nexttoken.engine.forward.packed_attention import ROOT
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.label_scores import UNKNOWN, Batch


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Rows with M target tokens: `targets` (M,) are their ids, `reads` (M,) the places before them in the layout.

    `row_of` (M,) is each target's row; `weight` is 0 for a filler batch.
    """

    ids: tuple[str, ...]
    layout: Layout
    reads: Tensor
    targets: Tensor
    row_of: Tensor
    rows: tuple
    packs: bool
    weight: float = 1.0

    def to(self, device: torch.device) -> "TextBatch":
        names = ("layout", "reads", "targets", "row_of")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def num_targets(self) -> Tensor:
        return torch.tensor(len(self.targets) if self.weight else 0, device=self.targets.device)

    @property
    def filler(self) -> "TextBatch":
        """The same rows with weight 0: they add nothing to the loss."""
        return replace(self, weight=0.0)

    @property
    def halves(self) -> list["TextBatch"]:
        """The same rows in two batches; a batch of one row stays whole."""
        middle, device = len(self.rows) // 2, self.targets.device
        if not middle:
            return [self]
        halves = [collate_texts(half, self.packs) for half in (self.rows[:middle], self.rows[middle:])]
        return [replace(half.to(device), weight=self.weight) for half in halves]


def collate_texts(rows: Sequence[Any], packs: bool = False) -> TextBatch:
    """Lay rows out, padded or packed. The first token of a row is never a target."""
    pieces = Pieces()
    for row in rows:
        pieces.add(row.token_ids)
    layout = pieces.packed() if packs else pieces.padded()
    learnt = [np.flatnonzero(np.asarray(row.learnt)[1:]) for row in rows]  # places before the targets
    reads = [torch.from_numpy(places + start) for places, start in zip(learnt, layout.starts, strict=True)]
    targets = [torch.as_tensor(np.asarray(row.token_ids)[places + 1]) for row, places in zip(rows, learnt, strict=True)]
    row_of = torch.repeat_interleave(torch.tensor(list(map(len, learnt))))
    ids = tuple(row.id for row in rows)
    return TextBatch(ids, layout, torch.cat(reads), torch.cat(targets).long(), row_of, tuple(rows), packs)


def answer_losses(model: nn.Module, batch: TextBatch) -> Tensor:
    """Cross-entropy (M,) in nats of the batch's targets, row by row."""
    with skipping(model, batch.reads):
        return token_losses(model, batch.layout, batch.reads, batch.targets) * batch.weight


def row_losses(model: nn.Module, batch: TextBatch) -> Tensor:
    """Cross-entropy (N,) in nats, summed over each row's targets."""
    losses = answer_losses(model, batch)
    return losses.new_zeros(len(batch.rows)).index_add(0, batch.row_of, losses)


def text_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean next-token cross-entropy of each row's prompt without labels, summed over the rows with a known label."""
    layout = batch.layout
    texts = [piece for piece, parent in enumerate(layout.parents) if parent == ROOT]  # the others are labels
    spans = [torch.arange(layout.lengths[piece] - 1) + layout.starts[piece] for piece in texts]
    device = layout.token_ids.device
    reads = torch.cat(spans).to(device)
    losses = token_losses(model, layout, reads, layout.token_ids.flatten()[reads + 1]).split(list(map(len, spans)))
    total = losses[0].new_zeros(())
    for row, own in enumerate(np.array_split(np.arange(len(texts)), len(batch.ids))):
        means = [losses[number].sum() / max(len(losses[number]), 1) for number in own]
        total = total + torch.stack(means).mean() * (batch.labels[row] != UNKNOWN)
    return total
