"""Shortcuts of the forward pass. Each is tried with every model and used only if it does not change the numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.last_layer import decoder, only_at
from nexttoken.engine.forward.layout import Layout, Pieces
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues
from nexttoken.engine.forward.prefixes import common_prefix
from nexttoken.models.precision import autocast_dtype, computing, exact_products
from nexttoken.models.sharded import is_sharded

TOLERANCE, TOLERANCE_16_BIT = 1e-4, 0.05  # relative to the norm of a hidden state
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}  # rotary positions that depend on the longest row
SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}  # not chunked, no state
TRIAL_ROWS = ((5, 3, 8, 1, 13, 2), (5, 3, 8, 21, 34), (4, 7, 11, 18, 29, 47, 9))  # token ids; two share a prefix
TRIAL_PLACES = (-3, -1)  # of each row; the first one of the second row is the last token of the shared prefix


@dataclass(frozen=True)
class Shortcuts:
    """`packs`: rows may be packed; `skips`: the last layer may be computed only where its output is used."""

    packs: bool = False
    skips: bool = False


_known: WeakKeyDictionary[nn.Module, Shortcuts] = WeakKeyDictionary()
_skipping: WeakSet[nn.Module] = WeakSet()


def shortcuts(model: Any) -> Shortcuts:
    """The shortcuts that a model allows, tried once: three short rows give the same hidden states as each row alone.

    They fail with unusual positions, additions to attention or layers that mix places. A model without weights, a
    sharded one, and one with layers whose differences only long rows show are not tried and have none.
    """
    if model not in _known:
        layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
        has_weights = not is_sharded(model) and not any(parameter.is_meta for parameter in model.parameters())
        _known[model] = _try_shortcuts(model) if has_weights and {*layers} <= SUPPORTED_LAYERS else Shortcuts()
    return _known[model]


def share_shortcuts(model: nn.Module, copies: Sequence[nn.Module]) -> None:
    """Give copies of a model over the same weights its shortcuts, without another trial."""
    for copy in copies:
        _known[copy] = shortcuts(model)


def allows_cached_prefix(model: Any) -> bool:
    """True if a prefix may be computed before the rows that continue it.

    False for a sharded model, whose decoder cannot run alone, and for positions that depend on the row's length.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    layers = (rope, *rope.values())  # one for the model, or one per layer type
    kinds = [layer.get("rope_type") for layer in layers if isinstance(layer, dict)]
    return shortcuts(model).packs and not is_sharded(model) and LENGTH_DEPENDENT_ROPE.isdisjoint(kinds)


@torch.no_grad()
def _try_shortcuts(model: nn.Module) -> Shortcuts:
    with evaluating(model), exact_products(next(model.parameters()).device):
        plain = torch.cat([_trial_states(model, [row], Shortcuts()) for row in TRIAL_ROWS])
        dtype = autocast_dtype(model) or plain.dtype
        tolerance = TOLERANCE if dtype == torch.float32 else TOLERANCE_16_BIT
        for trial in (Shortcuts(True, True), Shortcuts(True, False), Shortcuts(False, True)):
            with suppress(Exception):  # an architecture may fail with any error
                differences = _trial_states(model, TRIAL_ROWS, trial) - plain
                if bool((differences.norm(dim=1) <= tolerance * plain.norm(dim=1)).all()):
                    return trial
    return Shortcuts()


def _trial_states(model: nn.Module, rows: Sequence[Sequence[int]], trial: Shortcuts) -> Tensor:
    """Last hidden states (2N, H) of the rows. Packed ones share a cached first token, and two share a prefix piece."""
    device, pieces = next(model.parameters()).device, Pieces()
    num_tokens = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    rows = [[token % num_tokens for token in (1, *row)] for row in rows]
    if not trial.packs:
        numbers = [pieces.add(row) for row in rows]
        ends = [(number, len(rows[number]) + place) for number in numbers for place in TRIAL_PLACES]
        return hidden_states(model, pieces.padded().to(device), ends, trial.skips)
    prefix = compute_prefix(model, rows[0][:1])
    trunk, ends = pieces.add(rows[0][1:4], prefix=prefix), []
    for number, row in enumerate(rows):
        begin, parent = (4, trunk) if number < 2 else (1, ROOT)
        piece = pieces.add(row[begin:], parent, prefix)
        offsets = [len(row) + place - begin for place in TRIAL_PLACES]
        ends += [(piece, offset) if offset >= 0 else (trunk, 3 + offset) for offset in offsets]
    return hidden_states(model, pieces.packed().to(device), ends, trial.skips)


def hidden_states(model: nn.Module, layout: Layout, places: Sequence[tuple[int, int]], skips: bool) -> Tensor:
    """Last hidden states (M, H) at `places`: pairs of a piece and an offset in it."""
    reads = torch.tensor([layout.starts[piece] + offset for piece, offset in places], device=layout.token_ids.device)
    with layout.attending(model), only_at(model, reads) if skips else nullcontext(), computing(model):
        return decoder(model)(**layout.inputs).last_hidden_state.flatten(0, 1)[reads]


@torch.no_grad()
def compute_prefix(model: nn.Module, token_ids: Sequence[int] | np.ndarray) -> KeyValues:
    """The KV cache of a common prefix."""
    saved, pieces = KeyValues(len(token_ids)), Pieces()
    pieces.add(token_ids)
    layout = pieces.packed(saved).to(next(model.parameters()).device)
    with evaluating(model), layout.attending(model), computing(model):
        decoder(model)(**layout.inputs)
    return saved


def compute_common_prefix(model: nn.Module, rows: Sequence[np.ndarray]) -> KeyValues | None:
    """The KV cache of the tokens that all rows begin with; None where it does not pay, or the model allows none."""
    shared = common_prefix(rows) if allows_cached_prefix(model) else 0
    return compute_prefix(model, rows[0][:shared]) if shared else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) within this context; the previous mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def skipping(model: nn.Module, reads: Tensor) -> Iterator[None]:
    """Within this context the last layer is computed only at `reads`, if the model allows it.

    It has to include the backward pass, where gradient checkpointing runs layers again. Nested, it has no effect.
    """
    if model in _skipping or not shortcuts(model).skips:
        yield
        return
    _skipping.add(model)
    try:
        with only_at(model, reads):
            yield
    finally:
        _skipping.discard(model)
