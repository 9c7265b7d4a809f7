"""Attention of all segments in one kernel call on a GPU: torch.nn.attention.varlen.

That is FlashAttention (Dao 2023, https://arxiv.org/abs/2307.08691) over packed sequences. It supports 16-bit numbers,
no dropout and no soft-cap; all other attention is computed segment by segment (blocks.py).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor

from nexttoken.engine.forward.blocks import Part, attend_in_blocks
from nexttoken.models.memory import is_out_of_memory

TOLERANCE = 0.02  # relative to the norm: twice the 16-bit rounding error of attention and its gradients
TRIAL_SIZES = ((70, 70), (3, 40), (1, 9))  # queries and keys of the trial's rows; its window cuts two of them
TRIAL_WINDOW = 8
MIN_CAPABILITY = (8, 0)  # compute capability of GPUs that should have the kernel

Ends = dict[tuple[int, ...], Tensor]  # cumulative lengths by lengths; all layers share them


def goes_at_once(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, softcap: float | None, window: int | None
) -> bool:
    """True if `attend_at_once` may compute these tensors (1, heads, tokens, D) on their device."""
    if query.device.type != "cuda" or value.shape[3] != query.shape[3]:
        return False
    dtype, sizes = _dtype(query), (query.shape[1], key.shape[1], query.shape[3])
    return takes(dtype, dropout, softcap) and works(query.device, dtype, *sizes, window is not None)


def takes(dtype: torch.dtype, dropout: float, softcap: float | None) -> bool:
    """True if the kernel supports this kind of attention."""
    return dtype in (torch.bfloat16, torch.float16) and not dropout and softcap is None


def attend_at_once(parts: Sequence[Part], window: int | None, scaling: float | None, ends: Ends) -> Tensor:
    """Attention (1, heads, Q, D) of the queries of all parts, concatenated. Fills the cache `ends`."""
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler, which takes seconds

    runs = [run for part in parts for run in _split_runs(part, window)]
    tensors = ([getattr(run, name) for run in runs] for name in ("query", "key", "value"))
    dtype = _dtype(runs[0].query)
    query, key, value = (torch.cat(list(each), dim=2)[0].transpose(0, 1).to(dtype) for each in tensors)
    sizes = [tuple(tensor.shape[2] for tensor in (run.query, run.key)) for run in runs]
    query_ends, key_ends = (_ends(lengths, ends, query.device) for lengths in zip(*sizes, strict=True))
    longest = (max(lengths) for lengths in zip(*sizes, strict=True))
    options = {"window_size": (-1 if window is None else window - 1, 0), "enable_gqa": query.shape[1] > key.shape[1]}
    output = varlen_attn(query, key, value, query_ends, key_ends, *longest, scale=scaling, **options)  # type: ignore[arg-type]
    return output.transpose(0, 1)[None]  # type: ignore[union-attr]


def _split_runs(part: Part, window: int | None) -> list[Part]:
    """Runs of consecutive queries, each with the keys up to its last query, as the kernel expects."""
    places = part.places
    gaps = () if isinstance(places, range) else range(1, len(places))
    breaks = [n for n in gaps if places[n] != places[n - 1] + 1]
    return [part.cut(start, stop, window) for start, stop in pairwise([0, *breaks, len(places)])]


def _ends(lengths: tuple[int, ...], ends: Ends, device: torch.device) -> Tensor:
    """(N + 1,) int32: 0 and the cumulative lengths."""
    if lengths not in ends:
        ends[lengths] = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
    return ends[lengths]


def _dtype(query: Tensor) -> torch.dtype:
    """The dtype of the computation: autocast does not apply to this kernel by itself."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


@lru_cache
def works(
    device: torch.device, dtype: torch.dtype, num_heads: int, num_groups: int, size: int, has_window: bool
) -> bool:
    """True if the kernel exists and gives the outputs and gradients of `attend_in_blocks`: tried once.

    Old GPUs (below compute capability 8) and builds without it raise an error. The trial may run inside a checkpointed
    layer, whose hooks on saved tensors must not see these tensors.
    """
    window = TRIAL_WINDOW if has_window else None
    generator = torch.Generator(device).manual_seed(0)  # separate, so the run's random numbers do not change
    no_hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False), no_hooks:
        shapes = [((num_heads, q), (num_groups, k), (num_groups, k)) for q, k in TRIAL_SIZES]
        draw = partial(torch.randn, generator=generator, device=device)
        drawn = [[draw(1, *shape, size, dtype=dtype) for shape in row] for row in shapes]
        weights = draw(1, num_heads, sum(q for q, _ in TRIAL_SIZES), size)
        try:
            output = _outcome(drawn, weights, lambda parts: attend_at_once(parts, window, None, {}))
        except Exception as error:  # a machine may fail with any error
            if is_out_of_memory(error):
                raise
            if device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY:
                print(f"attention goes row by row, because torch's kernel fails: {' '.join(str(error).split())[:100]}")
            return False
        plain = [[tensor.float() for tensor in row] for row in drawn]
        by_row = partial(attend_in_blocks, window=window, masks={}, scaling=None, dropout=0.0, softcap=None)
        expected = _outcome(plain, weights, lambda parts: torch.cat([by_row(part) for part in parts], dim=2))
    return all((f.float() - e).norm() <= TOLERANCE * e.norm() for f, e in zip(output, expected, strict=True))


def _outcome(
    drawn: Sequence[Sequence[Tensor]], weights: Tensor, attend: Callable[[list[Part]], Tensor]
) -> list[Tensor]:
    """The outputs and the gradients of queries, keys and values."""
    leaves = [[tensor.clone().requires_grad_() for tensor in row] for row in drawn]
    output = attend([Part(q, k, v, range(k.shape[2] - q.shape[2], k.shape[2])) for q, k, v in leaves])
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), [*chain(*leaves)])]
