"""Rows with open answers through the model: padded or packed, with the loss at the answers' tokens only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.models.readout import reading, require_head

IGNORED = -100  # a position that nothing is learnt at


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Right-padded rows: `token_ids` (R, T); `targets` (R, T): what has to follow each position, IGNORED elsewhere.

    `positions` (R, T) restart with every row of a packed sequence; None where each row stands alone. `ids` name the
    rows, of which a packed sequence has several.
    """

    ids: tuple[str, ...]
    token_ids: Tensor
    targets: Tensor
    lengths: Tensor  # (R,) tokens without padding
    positions: Tensor | None = None

    def to(self, device: torch.device) -> "TextBatch":
        tensors = (self.token_ids, self.targets, self.lengths, self.positions)
        moved = (None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors)
        return TextBatch(self.ids, *moved)  # type: ignore[arg-type]

    @property
    def row_lengths(self) -> Tensor:
        """(R, 1), or (R, T) where rows are packed: tokens of the row that a position belongs to."""
        if self.positions is None:
            return self.lengths[:, None]
        places = (self.positions == 0).cumsum(dim=1)  # which row of its sequence, from 1
        counts = places.new_zeros(len(places), places.shape[1] + 1).scatter_add(1, places, torch.ones_like(places))
        return counts.gather(1, places)

    @property
    def filler(self) -> "TextBatch":
        """The same rows, which count for nothing."""
        return replace(self, targets=torch.full_like(self.targets, IGNORED))

    @property
    def halves(self) -> list["TextBatch"]:
        """The same rows in two batches, each padded to its own longest row; a batch of one row stays whole."""
        num_rows = len(self.token_ids)
        if num_rows == 1:
            return [self]
        return [self._rows(slice(None, num_rows // 2)), self._rows(slice(num_rows // 2, None))]

    def _rows(self, part: slice) -> "TextBatch":
        lengths = self.lengths[part]
        own = (part, slice(int(lengths.max())))
        positions = None if self.positions is None else self.positions[own]
        return TextBatch(self.ids[part], self.token_ids[own], self.targets[own], lengths, positions)


def collate_texts(rows: Sequence[Any]) -> TextBatch:
    """Pad rows on the right; causal attention never looks there, so padding needs no mask and changes nothing."""
    token_ids = [torch.as_tensor(row.token_ids, dtype=torch.long) for row in rows]
    targets = [_targets(row) for row in rows]
    positions = [torch.as_tensor(row.positions) for row in rows if hasattr(row, "positions")]
    pad = nn.utils.rnn.pad_sequence
    return TextBatch(
        tuple(row.id for row in rows),
        pad(token_ids, batch_first=True, padding_value=0),
        pad(targets, batch_first=True, padding_value=IGNORED),
        torch.tensor([len(ids) for ids in token_ids]),
        pad(positions, batch_first=True, padding_value=0) if positions else None,
    )


def _targets(row: Any) -> Tensor:
    """A learnt token is the target of the position before it; the first token of a row is nobody's."""
    ids, learnt = torch.as_tensor(row.token_ids, dtype=torch.long), torch.as_tensor(row.learnt)
    following = torch.where(learnt, ids, IGNORED)[1:]
    return torch.cat([following, following.new_full((1,), IGNORED)])


def answer_losses(model: nn.Module, batch: TextBatch) -> Tensor:
    """Cross-entropy (M,) in nats of the batch's M learnt tokens, row by row.

    The output head runs at their positions only: (1, M, V) logits instead of (R, T, V). Raises UserError for a model
    that passes its output head by.
    """
    where = batch.targets != IGNORED
    extra = {} if batch.positions is None else {"position_ids": batch.positions}
    with reading(model, lambda hidden: hidden[where][None]):
        logits = model(input_ids=batch.token_ids, use_cache=False, **extra).logits
    targets = batch.targets[where]
    require_head(model, logits, len(targets))
    return nn.functional.cross_entropy(logits[0].float(), targets, reduction="none")


def row_losses(model: nn.Module, batch: TextBatch) -> Tensor:
    """Cross-entropy (R,) in nats, summed over each row's learnt tokens."""
    rows = (batch.targets != IGNORED).nonzero()[:, 0]
    losses = answer_losses(model, batch)
    return losses.new_zeros(len(batch.token_ids)).index_add(0, rows, losses)
