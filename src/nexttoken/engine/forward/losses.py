"""Next-token losses at chosen places, without holding all logits over a large vocabulary in memory.

One token's logits take 1 MB for 256,000 words, and their gradients four times that. Large ones are computed in chunks
and again in the backward pass, as in TRL and Liger (Hsu et al. 2024), but by the model's own code.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nexttoken.engine.forward.head_rows import reading, replaced_forward, require_head, row_selector
from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.layout import Layout
from nexttoken.models.sharded import is_sharded

CHUNK_LOGITS = 2**25  # 128 MiB in 32 bit


def token_losses(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (M,) in nats of `targets` (M,), the tokens after the places `reads` (M,) of the flattened tokens.

    The output head runs at these places only: (1, M, V) logits instead of (R, T, V). At most CHUNK_LOGITS of them are
    in memory if the head is plain and the model calls its decoder.
    Raises UserError for a model that does not call its output head.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    size = max(1, CHUNK_LOGITS // getattr(head, "out_features", CHUNK_LOGITS))
    if len(reads) > size and row_selector(head) and not is_sharded(model) and calls_decoder(model):
        return _losses_in_chunks(model, layout, reads, targets, size)
    with layout.attending(model), reading(model, reads):
        logits = model(**layout.inputs).logits
    return _cross_entropy(model, logits, targets)


def _cross_entropy(model: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    require_head(model, logits, len(targets))
    return cross_entropy(logits[0].float(), targets, reduction="none")


def _losses_in_chunks(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor, size: int) -> Tensor:
    with layout.attending(model):
        output = decoder(model)(**layout.inputs)
    hidden = output.last_hidden_state.flatten(0, 1)[reads]  # (M, H)

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        with fixed_output(decoder(model), type(output)(last_hidden_state=hidden[None])):
            logits = model(input_ids=targets[None], use_cache=False).logits
        return _cross_entropy(model, logits, targets)

    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    options = {"use_reentrant": False, "preserve_rng_state": False}  # a plain head draws no random numbers
    return torch.cat([checkpoint(losses, *chunk, **options) for chunk in chunks])  # type: ignore[misc,arg-type]


@torch.no_grad()
def calls_decoder(model: nn.Module) -> bool:
    """True if the model's forward calls its decoder (OPT calls a part of it instead). No layer is computed."""
    token_ids = torch.zeros((1, 1), dtype=torch.long, device=next(model.parameters()).device)
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    with fixed_output(embeddings, None), fixed_output(decoder(model), None) as calls, suppress(Exception):
        model(input_ids=token_ids, use_cache=False)  # fails after the calls, since both return None
    return bool(calls)


@contextmanager
def fixed_output(module: nn.Module, output: Any) -> Iterator[list[Any]]:
    """Within this context `module` returns `output`; yields a list that grows with every call."""
    calls = list[Any]()

    def forward(*_: Any, **__: Any) -> Any:
        calls.append(output)
        return output

    with replaced_forward(module, forward):
        yield calls
