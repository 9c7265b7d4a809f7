"""How rows lie in the tensor that goes through the model: padded side by side, or packed one behind the other."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.packed_attention import ROOT, KeyValues, Segments, attending_by_segment


@dataclass(frozen=True, slots=True)
class Layout:
    """`token_ids` (R, T): rows padded on the right, or (1, T): pieces without a gap, with `position_ids` (1, T).

    Padding needs no mask: causal attention never looks right. `starts` and `lengths` are those of the pieces, counted
    over the flattened tokens.
    """

    token_ids: Tensor
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    position_ids: Tensor | None = None
    segments: Segments | None = None

    def to(self, device: torch.device) -> "Layout":
        positions = None if self.position_ids is None else self.position_ids.to(device, non_blocking=True)
        # Masks are made anew where they are used: dev batches live as long as the run, and theirs would stay as well.
        segments = None if self.segments is None else replace(self.segments, _masks={}, _ends={})
        token_ids = self.token_ids.to(device, non_blocking=True)
        return replace(self, token_ids=token_ids, position_ids=positions, segments=segments)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model is called with."""
        plain = {"input_ids": self.token_ids, "use_cache": False}
        packed = {"position_ids": self.position_ids, "segments": self.segments}
        return plain if self.segments is None else plain | packed

    def attending(self, model: nn.Module) -> AbstractContextManager[None]:
        """The attention that these rows need; it has to last until the gradients are there."""
        return nullcontext() if self.segments is None else attending_by_segment(model)

    def place(self, piece: int, token: int) -> int:
        """Where a piece's token stands in the flattened tokens; a negative one counts from the piece's end."""
        return self.starts[piece] + token + (self.lengths[piece] if token < 0 else 0)

    @property
    def parents(self) -> tuple[int, ...]:
        """The piece that each goes on from; padded rows stand alone."""
        return (ROOT,) * len(self.lengths) if self.segments is None else self.segments.parents

    @property
    def num_padding(self) -> int:
        return self.token_ids.numel() - sum(self.lengths)

    @property
    def row_lengths(self) -> Tensor:
        """(R, T): tokens from the row's beginning to the end of the piece that a place belongs to."""
        ends = list(self.lengths)
        if self.segments is not None:
            for piece, (parent, before) in enumerate(zip(self.segments.parents, self.segments.before, strict=True)):
                ends[piece] += read_before(before) if parent == ROOT else ends[parent]
            repeats = torch.tensor(self.lengths)
            return torch.repeat_interleave(torch.tensor(ends), repeats)[None].to(self.token_ids.device)
        return torch.tensor(ends, device=self.token_ids.device)[:, None].expand_as(self.token_ids)


class Pieces:
    """Token strings to be laid out; where they are packed, one may go on where an earlier one ends, or where tokens
    end that were read before."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.parents: list[int] = []
        self.before: list[KeyValues | None] = []

    def add(self, tokens: Sequence[int] | np.ndarray, parent: int = ROOT, before: KeyValues | None = None) -> int:
        """Append a piece; return its number. `before` counts for one without a parent."""
        self.tokens.append(np.asarray(tokens, dtype=np.int64))
        self.parents.append(parent)
        self.before.append(before if parent == ROOT else None)
        return len(self.tokens) - 1

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.tokens))

    def padded(self) -> Layout:
        rows = [torch.from_numpy(tokens) for tokens in self.tokens]
        token_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        return Layout(token_ids, tuple(range(0, token_ids.numel(), token_ids.shape[1])), self.lengths)

    def packed(self, kept: KeyValues | None = None) -> Layout:
        """`kept` takes the keys and values of all tokens."""
        lengths = self.lengths
        starts = tuple(np.cumsum([0, *lengths[:-1]]).tolist())
        begins: list[int] = []
        for parent, before in zip(self.parents, self.before, strict=True):
            begins.append(read_before(before) if parent == ROOT else begins[parent] + lengths[parent])
        positions = [np.arange(begin, begin + size) for begin, size in zip(begins, lengths, strict=True)]
        segments = Segments(lengths, tuple(self.parents), tuple(self.before), kept)
        flat = (torch.from_numpy(np.concatenate(parts))[None] for parts in (self.tokens, positions))
        token_ids, position_ids = flat
        return Layout(token_ids, starts, lengths, position_ids, segments)


def read_before(before: KeyValues | None) -> int:
    """Tokens that stand in front of a piece."""
    return 0 if before is None else before.length
