"""Attention of packed rows, segment by segment: nothing is computed across rows, and a shared prefix only once.

A segment is a run of tokens in a packed sequence; it may go on where another one ends, which it then sees as well.
Where a dense mask over the whole sequence would compute every pair, each segment is computed with what it sees.
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

from nexttoken.engine.forward.blocks import Masks, Part, attend_in_blocks
from nexttoken.engine.forward.varlen import Ends, attend_at_once, goes_at_once

NAME = "by_segment"
MOST_KEYS = 4  # times those of the sequence: keys of a shared beginning are copied for every row that asks at once
ROOT = -1  # the parent of a segment that goes on from none
FOREIGN = ("s_aux", "position_bias")  # what some architectures add to their scores, which is not computed here


@dataclass(eq=False)
class KeyValues:
    """Keys and values (1, heads, length, D) of `length` tokens in every attention layer, by the layer's index.

    Not by its module: copies of a model over the same weights read the same ones.
    """

    length: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "KeyValues":
        moved = {layer: (key.to(device), value.to(device)) for layer, (key, value) in self.layers.items()}
        return KeyValues(self.length, moved)

    def of(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """One layer's, brought to the device only when it attends: all layers of many rows may not fit there."""
        key, value = self.layers[layer]
        return key.to(device, non_blocking=True), value.to(device, non_blocking=True)

    def first(self, length: int) -> "KeyValues":
        """Those of the first tokens alone, without a copy."""
        cut = {layer: (key[:, :, :length], value[:, :, :length]) for layer, (key, value) in self.layers.items()}
        return KeyValues(length, cut)


@dataclass(eq=False)
class Segments:
    """The segments of a packed sequence in order: their lengths, and which earlier one each goes on from.

    `before` stands in front of each root, read earlier (None for the others, and where nothing does); `kept` takes the
    keys and values of this very sequence. `asking` are the tokens of each segment that look at others, in order and
    counted from its beginning; None where all do.
    """

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    before: tuple[KeyValues | None, ...]
    kept: KeyValues | None = None
    asking: tuple[Sequence[int], ...] | None = None
    _masks: Masks = field(default_factory=dict)
    _ends: Ends = field(default_factory=dict)

    @cached_property
    def num_seen(self) -> int:
        """Keys that the segments see, each segment counted for itself."""
        seen = list[int]()
        for length, parent, before in zip(self.lengths, self.parents, self.before, strict=True):
            seen.append(length + (seen[parent] if parent != ROOT else before.length if before else 0))
        return sum(seen)

    def chain(self, segment: int) -> list[int]:
        """The segments that this one goes on from, the root first, and itself."""
        found = [segment]
        while self.parents[found[0]] != ROOT:
            found.insert(0, self.parents[found[0]])
        return found

    def read_to(self, place: int) -> KeyValues:
        """Copies of what was kept of a row, from its beginning to the token at this place of the sequence."""
        assert self.kept is not None
        starts = [0, *accumulate(self.lengths)]
        segment = bisect_right(starts, place) - 1
        chain = self.chain(segment)
        earlier, spans = self.before[chain[0]], [slice(starts[n], starts[n + 1]) for n in chain[:-1]]
        spans.append(slice(starts[segment], place + 1))
        layers = {}
        for layer, pair in self.kept.layers.items():
            read = [(None, None) if earlier is None else earlier.layers[layer]][earlier is None :]
            read += [(pair[0][:, :, span], pair[1][:, :, span]) for span in spans]
            keys, values = (torch.cat(parts, dim=2) for parts in zip(*read, strict=True))
            layers[layer] = (keys, values)
        return KeyValues(sum(span.stop - span.start for span in spans) + (earlier.length if earlier else 0), layers)

    def only_at(self, reads: Sequence[int]) -> "Segments":
        """The same ones, of which only the tokens at the places `reads` of the sequence ask.

        A segment that needs no mask and is read at most of its places asks as a whole: that is the shorter way.
        """
        reads, asking = sorted(reads), list[Sequence[int]]()
        edges = pairwise([0, *accumulate(self.lengths)])
        for (start, end), parent, before in zip(edges, self.parents, self.before, strict=True):
            own = reads[bisect_left(reads, start) : bisect_left(reads, end)]
            is_whole = 2 * len(own) > end - start and parent == ROOT and before is None
            asking.append(range(end - start) if is_whole else [place - start for place in own])
        return replace(self, asking=tuple(asking)) if reads else self


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

    Where only some tokens ask, the result of the others is zero. Raises NotImplementedError for what an architecture
    adds to attention that is not computed here.
    """
    if segments is None or attention_mask is not None or any(others.get(name) is not None for name in FOREIGN):
        raise NotImplementedError(f"{type(module).__name__} cannot attend by segment")
    if sliding_window is None and slides(module):
        raise NotImplementedError(f"{type(module).__name__} keeps its window to itself")
    if segments.kept is not None:
        segments.kept.layers[layer_index(module)] = (key, value)
    layer = layer_index(module) if any(segments.before) else 0
    num_tokens, places = query.shape[2], _places(segments, query.device)
    query = query if places is None else query.index_select(2, places)
    parts = _parts(segments, layer, query, key, value)
    is_copied = segments.num_seen > MOST_KEYS * num_tokens
    if not is_copied and goes_at_once(query, key, value, dropout, softcap, sliding_window):
        output = attend_at_once(list(parts), sliding_window, scaling, segments._ends).transpose(1, 2)
    else:  # one part after the other: keys that were put together go again
        options: Any = {"scaling": scaling, "dropout": dropout, "softcap": softcap}
        each = (attend_in_blocks(part, sliding_window, segments._masks, **options) for part in parts)
        output = torch.cat([part.transpose(1, 2) for part in each], dim=1)
    if places is None:
        return output, None
    return output.new_zeros(1, num_tokens, *output.shape[2:]).index_copy(1, places, output), None


def _parts(segments: Segments, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Iterator[Part]:
    """What each segment asks, with the keys and values of all that it goes on from."""
    asking = segments.asking or tuple(map(range, segments.lengths))
    queries = query.split(list(map(len, asking)), dim=2)
    keys, values = (part.split(segments.lengths, dim=2) for part in (key, value))
    for number, own in enumerate(asking):
        if not own:
            continue
        chain = segments.chain(number)
        seen = [(keys[n], values[n]) for n in chain]
        if earlier := segments.before[chain[0]]:
            seen.insert(0, earlier.of(layer, query.device))
        k, v = (torch.cat(parts, dim=2) if len(parts) > 1 else parts[0] for parts in zip(*seen, strict=True))
        before = k.shape[2] - segments.lengths[number]
        standing = range(before, k.shape[2]) if isinstance(own, range) else [before + at for at in own]
        yield Part(queries[number], k, v, standing)


def _places(segments: Segments, device: torch.device) -> Tensor | None:
    """Where in the sequence those stand that ask; None where all do."""
    if segments.asking is None:
        return None
    starts = [0, *accumulate(segments.lengths)]
    flat = [start + place for start, own in zip(starts, segments.asking, strict=False) for place in own]
    return torch.tensor(flat).to(device, non_blocking=True)


def layer_index(module: nn.Module) -> int:
    """Which layer an attention module stands in. Raises NotImplementedError where it does not know."""
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise NotImplementedError(f"{type(module).__name__} does not know its layer")
    return index


def slides(module: nn.Module) -> bool:
    """Whether the configuration says that this layer sees a window only; some tell it to nobody but their own mask."""
    config: Any = getattr(module, "config", None)
    if layer_types := getattr(config, "layer_types", None):
        return layer_types[module.layer_idx] == "sliding_attention"  # type: ignore[index]
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


@contextmanager
def attending_by_segment(model: nn.Module) -> Iterator[None]:
    """Within this context the model's attention is `attend`, which a batch that is packed needs, also going back."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)  # type: ignore[arg-type]
    found: Iterator[Any] = (getattr(module, "config", None) for module in model.modules())
    configs = {id(config): config for config in found if hasattr(config, "_attn_implementation")}
    before = [config._attn_implementation for config in configs.values()]
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in zip(configs.values(), before, strict=True):
            config._attn_implementation = implementation
