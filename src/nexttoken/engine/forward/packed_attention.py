"""Segment attention of packed sequences: no attention across rows, and shared prefixes are computed only once.

A segment is a run of tokens in a packed sequence. It may continue an earlier segment, whose tokens it attends to as
well. Each segment is computed with its keys only, where a dense mask would compute every pair of the sequence.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.blocks import Masks, Part, attend_in_blocks, branch_groups, branch_places
from nexttoken.engine.forward.varlen import Ends, attend_at_once, goes_at_once

NAME = "by_segment"
MAX_KEY_COPIES = 4  # keys per token of the sequence in one kernel call: shared prefixes are copied for every segment
ROOT = -1  # parent of a segment that continues none
UNSUPPORTED = ("s_aux", "position_bias")  # additions of some architectures to the attention scores


@dataclass(eq=False)
class KeyValues:
    """A KV cache: keys and values (1, heads, length, D) of `length` tokens by layer index."""

    length: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "KeyValues":
        moved = {layer: (key.to(device), value.to(device)) for layer, (key, value) in self.layers.items()}
        return KeyValues(self.length, moved)

    def of(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """One layer's keys and values on the device, moved only when needed: all layers of many rows may not fit."""
        key, value = self.layers[layer]
        return key.to(device, non_blocking=True), value.to(device, non_blocking=True)

    def first(self, length: int) -> "KeyValues":
        """A view of the first `length` tokens."""
        cut = {layer: (key[:, :, :length], value[:, :, :length]) for layer, (key, value) in self.layers.items()}
        return KeyValues(length, cut)


@dataclass(eq=False)
class Segments:
    """The segments of a packed sequence in order: their lengths, and the earlier segment that each continues.

    `prefixes`: the KV cache in front of each root segment (None for other segments and for roots without one).
    `saved` is filled with the keys and values of this sequence. `queries`: the tokens of each segment, in order and
    counted from its start, whose attention is computed; None for all tokens.
    """

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    prefixes: tuple[KeyValues | None, ...]
    saved: KeyValues | None = None
    queries: tuple[Sequence[int], ...] | None = None
    _masks: Masks = field(default_factory=dict)
    _ends: Ends = field(default_factory=dict)

    @cached_property
    def ends(self) -> list[int]:
        """For each segment the number of tokens of its row up to its end: the keys that its last token attends to."""
        ends = list[int]()
        for length, parent, prefix in zip(self.lengths, self.parents, self.prefixes, strict=True):
            ends.append(length + (ends[parent] if parent != ROOT else prefix.length if prefix else 0))
        return ends

    @property
    def singles(self) -> list[range]:
        """Each segment alone."""
        return [range(n, n + 1) for n in range(len(self.lengths))]

    @cached_property
    def groups(self) -> list[range]:
        """The segments whose attention goes in one call: short ones that continue the same tokens."""
        roots = [None if prefix is None else id(prefix) for prefix in self.prefixes]
        parents = [root if parent == ROOT else (parent,) for parent, root in zip(self.parents, roots, strict=True)]
        return list(branch_groups(self.lengths, parents))

    def chain(self, segment: int) -> list[int]:
        """The segments from the root to this one."""
        chain = [segment]
        while self.parents[chain[0]] != ROOT:
            chain.insert(0, self.parents[chain[0]])
        return chain

    def saved_up_to(self, place: int) -> KeyValues:
        """A copy of the saved keys and values of a row, from its start to the token at `place` in the sequence."""
        assert self.saved is not None
        starts = [0, *accumulate(self.lengths)]
        segment = bisect_right(starts, place) - 1
        chain = self.chain(segment)
        prefix, spans = self.prefixes[chain[0]], [slice(starts[n], starts[n + 1]) for n in chain[:-1]]
        spans.append(slice(starts[segment], place + 1))
        layers = {}
        for layer, pair in self.saved.layers.items():
            parts = [prefix.layers[layer]] if prefix else []
            parts += [(pair[0][:, :, span], pair[1][:, :, span]) for span in spans]
            keys, values = (torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True))
            layers[layer] = (keys, values)
        return KeyValues(self.ends[segment] - starts[segment + 1] + place + 1, layers)

    def query_places(self, device: torch.device) -> Tensor | None:
        """The places of the queries in the sequence; None for all."""
        if self.queries is None:
            return None
        starts = [0, *accumulate(self.lengths)]
        flat = [start + place for start, queries in zip(starts, self.queries, strict=False) for place in queries]
        return torch.tensor(flat).to(device, non_blocking=True)

    def only_at(self, reads: Sequence[int]) -> "Segments":
        """The same segments with queries only at the places `reads` of the sequence.

        A segment that needs no mask and is read at most of its places is computed as a whole, which is faster.
        """
        reads, queries = sorted(reads), list[Sequence[int]]()
        edges = pairwise([0, *accumulate(self.lengths)])
        for (start, end), parent, prefix in zip(edges, self.parents, self.prefixes, strict=True):
            read = reads[bisect_left(reads, start) : bisect_left(reads, end)]
            is_whole = 2 * len(read) > end - start and parent == ROOT and prefix is None
            queries.append(range(end - start) if is_whole else [place - start for place in read])
        return replace(self, queries=tuple(queries)) if reads else self


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query (1, heads, T, D), key and value alike; returns (1, T, heads, D).

    The result is zero for tokens that are no queries.
    Raises NotImplementedError for additions of an architecture to attention that are not computed here.
    """
    if segments is None or attention_mask is not None or any(others.get(name) is not None for name in UNSUPPORTED):
        raise NotImplementedError(f"{type(module).__name__} does not support segment attention")
    _refuse_unsupported(module, segments, sliding_window)
    layer: Any = getattr(module, "layer_idx", None)
    if segments.saved is not None:
        segments.saved.layers[layer] = (key, value)
    num_tokens, places = query.shape[2], segments.query_places(query.device)
    if places is not None:
        query = query.index_select(2, places)
    has_many_copies = sum(segments.ends) > MAX_KEY_COPIES * num_tokens
    if not has_many_copies and goes_at_once(query, key, value, dropout, softcap, sliding_window):
        parts = _parts(segments, segments.singles, layer, query, key, value)
        output = attend_at_once(list(parts), sliding_window, scaling, segments._ends).transpose(1, 2)
    else:  # one part after the other, so that concatenated keys are freed again
        options: Any = {"scaling": scaling, "dropout": dropout, "softcap": softcap}
        parts = _parts(segments, segments.groups, layer, query, key, value)
        each = (attend_in_blocks(part, sliding_window, segments._masks, **options) for part in parts)
        output = torch.cat([part.transpose(1, 2) for part in each], dim=1)
    if places is not None:
        output = output.new_zeros(1, num_tokens, *output.shape[2:]).index_copy(1, places, output)
    return output, None


def _refuse_unsupported(module: nn.Module, segments: Segments, sliding_window: int | None) -> None:
    if sliding_window is None and has_sliding_window(getattr(module, "config", None), getattr(module, "layer_idx", 0)):
        raise NotImplementedError(f"{type(module).__name__} does not pass its sliding window on")
    needs_layer = segments.saved is not None or any(segments.prefixes)
    if needs_layer and not isinstance(getattr(module, "layer_idx", None), int):
        raise NotImplementedError(f"{type(module).__name__} has no layer_idx")


def _parts(
    segments: Segments, groups: Sequence[range], layer: int, query: Tensor, key: Tensor, value: Tensor
) -> Iterator[Part]:
    """The queries of each group of segments, with the keys and values of their chain."""
    places, lengths = segments.queries or tuple(map(range, segments.lengths)), segments.lengths
    queries = query.split([sum(len(places[n]) for n in group) for group in groups], dim=2)
    keys, values = (part.split(lengths, dim=2) for part in (key, value))
    for queried, group in zip(queries, groups, strict=True):
        branches = [n for n in group if places[n]]
        if not branches:
            continue
        chain = segments.chain(branches[0])
        seen = [(keys[n], values[n]) for n in [*chain[:-1], *branches]]
        if prefix := segments.prefixes[chain[0]]:
            seen.insert(0, prefix.of(layer, query.device))
        k, v = (torch.cat(parts, dim=2) if len(parts) > 1 else parts[0] for parts in zip(*seen, strict=True))
        start = k.shape[2] - sum(lengths[n] for n in branches)
        if len(branches) > 1:
            yield Part(queried, k, v, *branch_places(start, [(lengths[n], places[n]) for n in branches]))
            continue
        own = places[branches[0]]
        yield Part(queried, k, v, range(start, k.shape[2]) if isinstance(own, range) else [start + p for p in own])


def has_sliding_window(config: Any, layer: int | None = None) -> bool:
    """True if the configuration gives this layer, or without `layer` any, a sliding window."""
    if layer_types := getattr(config, "layer_types", None):
        return "sliding_attention" in (layer_types if layer is None else layer_types[layer : layer + 1])
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


@contextmanager
def attending_by_segment(model: nn.Module) -> Iterator[None]:
    """Within this context the model's attention is `attend`; packed batches need it in the backward pass, too."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)  # type: ignore[arg-type]
    all_configs: Iterator[Any] = (getattr(module, "config", None) for module in model.modules())
    configs = {id(config): config for config in all_configs if hasattr(config, "_attn_implementation")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    for config, _ in before:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
