"""The layout of token sequences in the model's input: padded rows, or one packed sequence."""

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
    """`token_ids` (R, T): rows padded on the right, or (1, T): packed pieces with `position_ids` (1, T).

    Right padding needs no mask under causal attention. `starts` and `lengths` of the pieces count flattened tokens.
    """

    token_ids: Tensor
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    position_ids: Tensor | None = None
    segments: Segments | None = None

    def to(self, device: torch.device) -> "Layout":
        positions = None if self.position_ids is None else self.position_ids.to(device, non_blocking=True)
        # New mask caches: dev batches live as long as the run, and their masks would stay in memory with them.
        segments = None if self.segments is None else replace(self.segments, _masks={}, _ends={})
        token_ids = self.token_ids.to(device, non_blocking=True)
        return replace(self, token_ids=token_ids, position_ids=positions, segments=segments)

    @property
    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model."""
        plain = {"input_ids": self.token_ids, "use_cache": False}
        packed = {"position_ids": self.position_ids, "segments": self.segments}
        return plain if self.segments is None else plain | packed

    def attending(self, model: nn.Module) -> AbstractContextManager[None]:
        """Context of segment attention for packed rows; it has to include the backward pass."""
        return nullcontext() if self.segments is None else attending_by_segment(model)

    def place(self, piece: int, token: int) -> int:
        """Index of a piece's token in the flattened tokens; a negative `token` counts from the piece's end."""
        return self.starts[piece] + token + (self.lengths[piece] if token < 0 else 0)

    @property
    def parents(self) -> tuple[int, ...]:
        """The piece that each piece continues; ROOT for padded rows."""
        return (ROOT,) * len(self.lengths) if self.segments is None else self.segments.parents

    @property
    def num_padding(self) -> int:
        return self.token_ids.numel() - sum(self.lengths)

    @property
    def row_lengths(self) -> Tensor:
        """(R, T): for every place the number of tokens from the row's start to the end of its piece."""
        lengths = torch.tensor(self.lengths)
        if self.segments is None:
            return lengths.to(self.token_ids.device)[:, None].expand_as(self.token_ids)
        ends = torch.tensor(self.segments.ends)
        return torch.repeat_interleave(ends, lengths)[None].to(self.token_ids.device)


class Pieces:
    """Token sequences to be laid out. Packed, a piece may continue an earlier piece (`parent`) or a KV cache."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.parents: list[int] = []
        self.prefixes: list[KeyValues | None] = []

    def add(self, tokens: Sequence[int] | np.ndarray, parent: int = ROOT, prefix: KeyValues | None = None) -> int:
        """Append a piece and return its number. `prefix` is ignored for a piece with a parent."""
        self.tokens.append(np.asarray(tokens, dtype=np.int64))
        self.parents.append(parent)
        self.prefixes.append(prefix if parent == ROOT else None)
        return len(self.tokens) - 1

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.tokens))

    def padded(self) -> Layout:
        rows = [torch.from_numpy(tokens) for tokens in self.tokens]
        token_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        return Layout(token_ids, tuple(range(0, token_ids.numel(), token_ids.shape[1])), self.lengths)

    def packed(self, saved: KeyValues | None = None) -> Layout:
        """One packed sequence; `saved` is filled with the keys and values of all tokens."""
        lengths = self.lengths
        segments = Segments(lengths, tuple(self.parents), tuple(self.prefixes), saved)
        positions = [np.arange(end - size, end) for end, size in zip(segments.ends, lengths, strict=True)]
        token_ids, position_ids = (torch.from_numpy(np.concatenate(parts))[None] for parts in (self.tokens, positions))
        starts = tuple(np.cumsum([0, *lengths[:-1]]).tolist())
        return Layout(token_ids, starts, lengths, position_ids, segments)


def prefix_length(prefix: KeyValues | None) -> int:
    return 0 if prefix is None else prefix.length
