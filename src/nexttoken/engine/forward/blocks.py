"""Causal attention in blocks of queries, which skips most of the masked pairs.

torch's fused attention on the CPU computes every pair under a dense mask, allowed or not. Here a block of queries gets
only the keys that it attends to (0.65-0.85 of the time for rows of 500 tokens or more).
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

MAX_TOKENS = 96  # of the branches in one call: pairs of different branches are computed for nothing
MULTIPLIED = 512  # keys up to which a CPU trains 16-bit attention by plain products: 0.3 to 0.7 of the time
BLOCK = 256  # queries; the last block takes the remainder, since smaller blocks gain nothing

Masks = dict[tuple, Tensor]  # by geometry, shared by many blocks and layers


def branch_groups(lengths: Sequence[int], beginnings: Sequence[Any]) -> Iterator[range]:
    """Consecutive segments that go in one call: those of one beginning (None: of no shared one) with few tokens."""
    for beginning, same in groupby(range(len(lengths)), beginnings.__getitem__):
        first, total = None, 0
        for number in same:
            total += lengths[number]
            if first is not None and (beginning is None or total > MAX_TOKENS):
                yield range(first, number)
                first, total = None, lengths[number]
            first = number if first is None else first
        if first is not None:
            yield range(first, number + 1)


def branch_places(start: int, branches: Sequence[tuple[int, Sequence[int]]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the queries among the keys, and where their branches start, of consecutive branches from `start`.

    Each branch is given by its number of tokens and the queried ones, counted from its own start.
    """
    starts = accumulate((length for length, _ in branches), initial=start)
    flat = [(begin + place, begin) for begin, (_, queried) in zip(starts, branches, strict=False) for place in queried]
    places, begins = zip(*flat, strict=True)
    return places, begins


def branch_mask(places: Sequence[int], starts: Sequence[int], num_keys: int, window: int | None) -> Tensor:
    """(queries, keys), True for allowed pairs: the keys before the first branch, then the branches' own.

    places: of the queries among the keys; starts: of their branches. window: limits attention to the last tokens.
    """
    at, start, key = torch.tensor(places)[:, None], torch.tensor(starts)[:, None], torch.arange(num_keys)[None]
    own, shared = (key >= start) & (key <= at), key < starts[0]
    if window is None:
        return own | shared
    return own & (key > at - window) | shared & (key > starts[0] + at - start - window)


class Part(NamedTuple):
    """Queries (1, heads, Q, D) at increasing `places` of K tokens with keys and values (1, groups, K, D).

    `starts`: for branches behind shared keys, the place where each query's branch starts; the first one is queried.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    places: Sequence[int]
    starts: Sequence[int] = ()

    def cut(self, start: int, stop: int, window: int | None) -> "Part":
        """The queries from `start` to `stop` with the keys from the first to the last that they attend to."""
        places = self.places[start:stop]
        first, end = max(0, places[0] + 1 - window) if window else 0, places[-1] + 1
        query, key, value = self.query[:, :, start:stop], self.key[:, :, first:end], self.value[:, :, first:end]
        if isinstance(places, range):
            return Part(query, key, value, range(places[0] - first, end - first))
        return Part(query, key, value, [place - first for place in places])

    def is_causal(self, window: int | None, softcap: float | None) -> bool:
        """True if the causal kernel, which skips masked pairs by itself, computes this attention."""
        num_keys = self.key.shape[2]
        return len(self.places) == num_keys and softcap is None and (window is None or num_keys <= window)


def attend_in_blocks(
    part: Part, window: int | None, masks: Masks, scaling: float | None, dropout: float, softcap: float | None
) -> Tensor:
    """Causal attention (1, heads, Q, D), limited to the last `window` tokens if given. Fills the cache `masks`."""
    if part.starts:
        return _attend(part, _mask(part, window, masks), scaling, dropout, softcap)
    outputs, num_queries = [], len(part.places)
    starts = (0,) if part.is_causal(window, softcap) else range(0, max(num_queries - BLOCK, 0) + 1, BLOCK)
    for start, stop in pairwise((*starts, num_queries)):
        block = part.cut(start, stop, window)
        has_mask = stop - start > 1 and (_is_multiplied(block) or not block.is_causal(window, softcap))
        mask = _mask(block, window, masks) if has_mask else None
        outputs.append(_attend(block, mask, scaling, dropout, softcap))
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _mask(block: Part, window: int | None, masks: Masks) -> Tensor:
    """(queries, keys), True for allowed pairs."""
    device, num_keys = block.key.device, block.key.shape[2]
    window = window if window is not None and window < num_keys else None
    geometry = (tuple(block.places), tuple(block.starts), num_keys, window)
    if geometry not in masks and block.starts:
        masks[geometry] = branch_mask(*geometry).to(device, non_blocking=True)
    elif geometry not in masks:
        places = torch.tensor(geometry[0]).to(device, non_blocking=True)[:, None]
        keys = torch.arange(num_keys, device=device)[None]
        masks[geometry] = (keys <= places) & (keys > places - (window or num_keys + 1))
    return masks[geometry]


def is_fused(*tensors: Any, **options: Any) -> bool:
    """True if torch computes this attention, with the arguments of its function, without holding all its scores."""
    return torch._fused_sdp_choice(*tensors, **options) != SDPBackend.MATH.value


def _is_multiplied(part: Part) -> bool:
    """True if plain products are faster than torch's fused attention, whose backward pass is slow in 16 bit on a CPU.

    They keep the weights of all pairs for the backward pass.
    """
    query, num_keys = part.query, part.key.shape[2]
    return query.requires_grad and query.device.type == "cpu" and query.dtype.itemsize == 2 and num_keys <= MULTIPLIED


def _attend(part: Part, mask: Tensor | None, scaling: float | None, dropout: float, softcap: float | None) -> Tensor:
    """Without a mask a single query attends to all keys, and several attend causally."""
    if softcap is not None or _is_multiplied(part):
        return _multiply(part, mask, scaling, dropout, softcap)
    query, key, value = part[:3]
    options: dict[str, Any] = {"is_causal": mask is None and query.shape[2] > 1, "scale": scaling}
    options["enable_gqa"] = query.shape[1] > key.shape[1]
    if options["enable_gqa"] and not is_fused(query, key, value, mask, dropout, **options):
        # Most GPU kernels take heads that share keys without a mask only, and from compute capability 8 on.
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
        options["enable_gqa"] = False
    return scaled_dot_product_attention(query, key, value, mask, dropout, **options)


def _multiply(part: Part, mask: Tensor | None, scaling: float | None, dropout: float, softcap: float | None) -> Tensor:
    """Attention as two matrix products; without a mask all queries attend to all keys."""
    query, key, value = part[:3]
    num_queries, scaling = query.shape[2], query.shape[3] ** -0.5 if scaling is None else scaling
    query = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)  # heads that share keys become queries: no copies
    scores = (query @ key.transpose(2, 3)).unflatten(2, (-1, num_queries))
    if softcap is not None:
        scores, scaling = torch.tanh(scores * (scaling / softcap)), softcap
    if mask is None:
        scores = scores * scaling
    else:
        masked = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
        scores = torch.add(masked, scores, alpha=scaling)
    weights = drop(scores.softmax(dim=-1), dropout)
    return (weights.flatten(2, 3) @ value).unflatten(2, (-1, num_queries)).flatten(1, 2)
