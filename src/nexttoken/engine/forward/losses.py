"""Next-token losses at the places that are learnt, over a whole vocabulary that never stands in memory at once.

A token's logits are 1 MB at 256,000 words, and learning from them takes four times that. Where they are many, they are
computed in pieces and again on the way back, as TRL and Liger (Hsu et al. 2024) do it, but by the model's own code.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nexttoken.engine.forward.head_rows import reading, require_head, rows_of
from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.layout import Layout
from nexttoken.models.sharded import is_sharded

PIECE = 2**25  # logits at a time: 128 MiB in 32 bit


def token_losses(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (M,) in nats of `targets` (M,), the tokens behind the places `reads` (M,) of the flattened tokens.

    The output head runs at these places only: (1, M, V) logits instead of (R, T, V), and of those at most PIECE at a
    time where the head is its weights and the model calls its decoder. Raises UserError for a model that passes its
    output head by.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    size = max(1, PIECE // getattr(head, "out_features", PIECE))
    if len(reads) > size and rows_of(head) and not is_sharded(model) and calls_decoder(model):
        return _in_pieces(model, layout, reads, targets, size)
    with layout.attending(model), reading(model, reads):
        logits = model(**layout.inputs).logits
    require_head(model, logits, len(targets))
    return cross_entropy(logits[0].float(), targets, reduction="none")


def _in_pieces(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor, size: int) -> Tensor:
    with layout.attending(model):
        output = decoder(model)(**layout.inputs)
    hidden = output.last_hidden_state.flatten(0, 1)[reads]  # (M, H)

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        with standing_in(decoder(model), type(output)(last_hidden_state=hidden[None])):
            logits = model(input_ids=targets[None], use_cache=False).logits
        require_head(model, logits, len(targets))
        return cross_entropy(logits[0].float(), targets, reduction="none")

    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    again = {"use_reentrant": False, "preserve_rng_state": False}  # a plain head draws nothing
    return torch.cat([checkpoint(losses, *piece, **again) for piece in pieces])  # type: ignore[misc,arg-type]


@torch.no_grad()
def calls_decoder(model: nn.Module) -> bool:
    """Whether the model's own forward calls its decoder: that of OPT calls a part of it. No layer is computed."""
    token_ids = torch.zeros((1, 1), dtype=torch.long, device=next(model.parameters()).device)
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    with standing_in(embeddings, None), standing_in(decoder(model), None) as calls, suppress(Exception):
        model(input_ids=token_ids, use_cache=False)  # nothing comes out of either to go on with
    return bool(calls)


@contextmanager
def standing_in(module: nn.Module, output: Any) -> Iterator[list[Any]]:
    """Within this context `module` returns `output`: what comes behind it is computed by the model's own code.

    Yields a list that grows with every call.
    """
    before, calls = module.__dict__.get("forward"), list[Any]()  # accelerate's, which comes back

    def forward(*_: Any, **__: Any) -> Any:
        calls.append(output)
        return output

    module.forward = forward  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        module.__dict__.pop("forward", None)
        if before is not None:
            module.forward = before  # type: ignore[method-assign]
