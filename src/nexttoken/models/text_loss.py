"""The loss over a prompt's own tokens: epochs that learn the language before the labels."""

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.models.layout import Layout
from nexttoken.models.readout import UNKNOWN, Batch
from nexttoken.models.segments import ROOT


def text_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Each row's mean next-token cross-entropy, summed over the rows that count: the language before the labels."""
    layout = batch.layout
    with layout.attending(model):
        logits = model(**layout.inputs).logits.flatten(0, 1).float()  # (R*T, V)
    total = logits.new_zeros(())
    texts = [piece for piece, parent in enumerate(layout.parents) if parent == ROOT]  # not the labels behind them
    for row, pieces in enumerate(np.array_split(texts, len(batch.ids))):
        losses = [_piece_loss(logits, layout, int(piece)) for piece in pieces]
        total = total + torch.stack(losses).mean() * (batch.labels[row] != UNKNOWN)
    return total


def _piece_loss(logits: Tensor, layout: Layout, piece: int) -> Tensor:
    start, size = layout.starts[piece], layout.lengths[piece]
    targets = layout.token_ids.flatten()[start + 1 : start + size]
    return nn.functional.cross_entropy(logits[start : start + size - 1], targets, reduction="sum") / max(size - 1, 1)
