"""Attention of packed rows, segment by segment: nothing is computed across rows, and a shared prefix only once.

A segment is a run of tokens in a packed sequence; it may go on where another one ends, which it then sees as well. Each
segment is one call of torch's fused attention without a mask, where a dense mask over all would compute every pair.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

NAME = "by_segment"
ROOT = -1  # the parent of a segment that goes on from none
FOREIGN = ("s_aux", "position_bias")  # what some architectures add to their scores, which is not computed here


@dataclass(eq=False)
class KeyValues:
    """Keys and values (1, heads, length, D) of `length` tokens in every attention layer."""

    length: int
    layers: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(eq=False)
class Segments:
    """The segments of a packed sequence in order: their lengths, and which earlier one each goes on from.

    `prefix` stands before every root; `kept` takes the keys and values of this very sequence.
    """

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    prefix: KeyValues | None = None
    kept: KeyValues | None = None
    _masks: dict[tuple, Tensor] = field(default_factory=dict)

    def chain(self, segment: int) -> list[int]:
        """The segments that this one goes on from, the first one first."""
        found: list[int] = []
        while (segment := self.parents[segment]) != ROOT:
            found.insert(0, segment)
        return found

    def mask(self, num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
        """(queries, keys), True where a token may look: the queries are the last of the keys."""
        key = (num_queries, num_keys, window)
        if key not in self._masks:
            at = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
            seen = torch.arange(num_keys, device=device)[None]
            self._masks[key] = (seen <= at) & (seen > at - (window or num_keys + 1))
        return self._masks[key]


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

    Raises NotImplementedError for what an architecture adds to attention that is not computed here.
    """
    if segments is None or attention_mask is not None or any(others.get(name) is not None for name in FOREIGN):
        raise NotImplementedError(f"{type(module).__name__} cannot attend by segment")
    if sliding_window is None and slides(module):
        raise NotImplementedError(f"{type(module).__name__} keeps its window to itself")
    if segments.kept is not None:
        segments.kept.layers[module] = (key, value)
    queries, keys, values = (part.split(segments.lengths, dim=2) for part in (query, key, value))
    prefix = segments.prefix.layers[module] if segments.prefix else None
    outputs = []
    for number, own in enumerate(queries):
        seen = [*segments.chain(number), number]
        k, v = (torch.cat([part[n] for n in seen], dim=2) if len(seen) > 1 else part[number] for part in (keys, values))
        if prefix is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(prefix, (k, v), strict=True))
        beyond = sliding_window is not None and k.shape[2] > sliding_window
        is_masked = beyond or (own.shape[2] != k.shape[2] and own.shape[2] > 1)
        mask = segments.mask(own.shape[2], k.shape[2], sliding_window, k.device) if is_masked or softcap else None
        outputs.append(_attend(own, k, v, mask, scaling, dropout, softcap).transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def slides(module: nn.Module) -> bool:
    """Whether the configuration says that this layer sees a window only; some tell it to nobody but their own mask."""
    config: Any = getattr(module, "config", None)
    if layer_types := getattr(config, "layer_types", None):
        return layer_types[module.layer_idx] == "sliding_attention"  # type: ignore[index]
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Causal attention of the last tokens of `key`; without a mask a lone query sees all of them."""
    num_shared = query.shape[1] // key.shape[1]
    if softcap is None:
        is_causal = mask is None and query.shape[2] > 1
        options = {"scale": scaling, "dropout_p": dropout, "enable_gqa": num_shared > 1}
        return scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, **options)  # type: ignore[arg-type]
    assert mask is not None
    key, value = (part.repeat_interleave(num_shared, dim=1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return drop(weights, dropout) @ value


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
