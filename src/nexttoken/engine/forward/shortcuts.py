"""Which shortcuts a model's architecture allows, found by trying: what does not give the same numbers is not used."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.last_layer import decoder, only_at
from nexttoken.engine.forward.layout import Layout, Pieces
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues
from nexttoken.models.sharded import is_sharded

EXACT, ROUNDED = 1e-4, 0.05  # of a row's norm: in 32 bit, and in 16
STRETCHED = {"dynamic", "longrope"}  # rotary positions, by the longest row that is read with them
KNOWN = {"full_attention", "sliding_attention"}  # not in chunks, not over a state
ROWS = ((5, 3, 8, 1, 13, 2), (5, 3, 8, 21, 34), (4, 7, 11, 18, 29, 47, 9))  # token ids; two begin alike
READ = (-3, -1)  # places of each row; the first of the second row ends what it shares


@dataclass(frozen=True)
class Shortcuts:
    """`packs`: rows may lie one behind the other; `skips`: the last layer may be computed where it is read."""

    packs: bool = False
    skips: bool = False


_found: WeakKeyDictionary[nn.Module, Shortcuts] = WeakKeyDictionary()
_skipping: WeakSet[nn.Module] = WeakSet()


def shortcuts(model: nn.Module) -> Shortcuts:
    """Try on three short rows, once a model: the architecture's own forward of each row alone is what has to come out.

    Exotic positions, additions to attention, layers that mix places: whatever a shortcut would break shows here, and
    rows are padded and layers computed whole instead.
    """
    if model not in _found:
        _found[model] = Shortcuts() if not can_be_tried(model) else _best(model)
    return _found[model]


def take_shortcuts_of(model: nn.Module, copies: Sequence[nn.Module]) -> None:
    """Copies of a model's modules over its weights take what it takes, and are not tried themselves."""
    for copy in copies:
        _found[copy] = shortcuts(model)


def can_be_tried(model: Any) -> bool:
    """Not without weights, not in pieces on several devices, and not with layers that only long rows tell apart."""
    layer_types = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not is_sharded(model) and not any(p.is_meta for p in model.parameters()) and {*layer_types} <= KNOWN


def keeps_prefix(model: Any) -> bool:
    """Whether the beginning of rows may be read alone, before them: not by a sharded model, which comes together only
    as a whole, nor where longer rows stretch the positions."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)]  # or one a layer type
    return shortcuts(model).packs and not is_sharded(model) and STRETCHED.isdisjoint(kinds)


@torch.no_grad()
def _best(model: nn.Module) -> Shortcuts:
    with evaluating(model):
        plain = torch.cat([_hidden(model, [row], Shortcuts()) for row in ROWS])
        tries = (Shortcuts(True, True), Shortcuts(True, False), Shortcuts(False, True))
        return next((tried for tried in tries if _gives(model, tried, plain)), Shortcuts())


def _gives(model: nn.Module, tried: Shortcuts, plain: Tensor) -> bool:
    try:
        found = _hidden(model, ROWS, tried)
    except Exception:  # an architecture may refuse in any way it likes
        return False
    tolerance = EXACT if found.dtype == torch.float32 else ROUNDED
    return found.shape == plain.shape and bool(((found - plain).norm(dim=1) <= tolerance * plain.norm(dim=1)).all())


def _hidden(model: nn.Module, rows: Sequence[Sequence[int]], tried: Shortcuts) -> Tensor:
    """The last hidden states (2N, H) of each row; packed ones share the token that they all begin with, and a trunk."""
    device, pieces = next(model.parameters()).device, Pieces()
    num_tokens = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    rows = [[token % num_tokens for token in (1, *row)] for row in rows]
    if not tried.packs:
        alone = [(pieces.add(row), len(row)) for row in rows]
        ends = [(piece, size + at) for piece, size in alone for at in READ]
        return read_hidden(model, pieces.padded().to(device), ends, tried.skips)
    prefix = read_prefix(model, rows[0][:1])
    trunk, ends = pieces.add(rows[0][1:4], before=prefix), []
    for number, row in enumerate(rows):
        begin, parent = (4, trunk) if number < 2 else (1, ROOT)
        piece = pieces.add(row[begin:], parent, prefix)
        places = [len(row) + at - begin for at in READ]
        ends += [(piece, place) if place >= 0 else (trunk, 3 + place) for place in places]
    return read_hidden(model, pieces.packed().to(device), ends, tried.skips)


def read_hidden(model: nn.Module, layout: Layout, ends: Sequence[tuple[int, int]], skips: bool) -> Tensor:
    reads = torch.tensor([layout.starts[piece] + offset for piece, offset in ends], device=layout.token_ids.device)
    with layout.attending(model), ExitStack() as stack:
        if skips:
            stack.enter_context(only_at(model, reads))
        return decoder(model)(**layout.inputs).last_hidden_state.flatten(0, 1)[reads]


@torch.no_grad()
def read_prefix(model: nn.Module, token_ids: Sequence[int] | np.ndarray) -> KeyValues:
    """Read tokens that many rows begin with, and keep what attention needs of them."""
    kept, pieces = KeyValues(len(token_ids)), Pieces()
    pieces.add(token_ids)
    layout = pieces.packed(kept=kept).to(next(model.parameters()).device)
    with evaluating(model), layout.attending(model):
        decoder(model)(**layout.inputs)
    return kept


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, and in the mode that it was in afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def skipping(model: nn.Module, reads: Tensor) -> Iterator[None]:
    """Within this context the last layer is computed at `reads` only, where the model allows it.

    It has to last until the gradients are there: layers run again on the way back where activations are not kept.
    Entered once more inside, it changes nothing.
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
