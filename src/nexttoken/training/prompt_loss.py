"""The loss over a prompt's own tokens: epochs that learn the language before the labels."""

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.losses import token_losses
from nexttoken.engine.forward.packed_attention import ROOT
from nexttoken.engine.label_scores import UNKNOWN, Batch


def text_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Each row's mean next-token cross-entropy, summed over the rows that count: the language before the labels."""
    layout = batch.layout
    texts = [piece for piece, parent in enumerate(layout.parents) if parent == ROOT]  # not the labels behind them
    spans = [torch.arange(layout.lengths[piece] - 1) + layout.starts[piece] for piece in texts]
    device = layout.token_ids.device
    reads = torch.cat(spans).to(device)
    losses = token_losses(model, layout, reads, layout.token_ids.flatten()[reads + 1]).split(list(map(len, spans)))
    total = losses[0].new_zeros(())
    for row, own in enumerate(np.array_split(np.arange(len(texts)), len(batch.ids))):
        means = [losses[number].sum() / max(len(losses[number]), 1) for number in own]
        total = total + torch.stack(means).mean() * (batch.labels[row] != UNKNOWN)
    return total
