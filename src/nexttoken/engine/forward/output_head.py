"""The output head at chosen places and for chosen tokens only: logits there, and next-token losses.

One token's logits take 1 MB for 256,000 words, and their gradients four times that. Large ones are computed in chunks
and again in the backward pass, as in TRL and Liger (Hsu et al. 2024), but by the model's own code.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nexttoken.engine.forward.float32_head import (
    CHUNK,
    PLAIN_CHECKPOINT,
    eight_bit_rows,
    in_float32,
    replaced_forward,
    row_selector,
)
from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.layout import Layout
from nexttoken.errors import UserError
from nexttoken.models.precision import computing
from nexttoken.models.sharded import is_sharded


@contextmanager
def reading(model: nn.Module, reads: Tensor) -> Iterator[None]:
    """Within this context `model(...)` returns logits (1, M, V) at the places `reads` (M,) of the flattened tokens.

    A hook selects the hidden states in front of the output head, inside the model's own forward. So everything around
    the head applies (soft-capping, scaling, bias, tied or quantized weights).
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]

    def select_places(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, reads)[None],)

    handle = head.register_forward_pre_hook(select_places)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def reading_labels(model: nn.Module, reads: Tensor, columns: Sequence[int] | None = None) -> Iterator[None]:
    """Within this context the logits at `reads` are float32 products of the hidden states, whatever the weights' dtype.

    With `columns` the logits are (1, M, len(columns)), and the head's other rows are not computed. In 16 bit, logits
    near 24 would be rounded to steps of 0.125, and labels would tie.
    """
    with reading(model, reads), in_float32(model.get_output_embeddings(), columns):  # type: ignore[operator]
        yield


def require_head(model: nn.Module, logits: Tensor, num_read: int) -> None:
    """Raises UserError unless logits (R, J, V) are those of `num_read` places."""
    if logits.shape[1] != num_read:
        name = type(model).__name__
        raise UserError(f"{name} does not call its output head; choose a model that runs transformers' own code")


def token_losses(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (M,) in nats of `targets` (M,), the tokens after the places `reads` (M,) of the flattened tokens.

    The output head runs at these places only. At most CHUNK logits are in memory if the head is plain and the
    model calls its decoder.
    Raises UserError for a model that does not call its output head.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    size = max(1, CHUNK // getattr(head, "out_features", CHUNK))
    keeps_still = row_selector(head) not in (None, eight_bit_rows) and "forward" not in vars(head)
    if len(reads) > size and keeps_still and not is_sharded(model) and calls_decoder(model):
        return _losses_in_chunks(model, layout, reads, targets, size)
    with layout.attending(model), reading(model, reads), computing(model):
        logits = model(**layout.inputs).logits
    return _cross_entropy(model, logits, targets)


def _cross_entropy(model: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    require_head(model, logits, len(targets))
    return cross_entropy(logits[0].float(), targets, reduction="none")


def _losses_in_chunks(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor, size: int) -> Tensor:
    with layout.attending(model), computing(model):
        output = decoder(model)(**layout.inputs)
    hidden = output.last_hidden_state.flatten(0, 1)[reads]  # (M, H)

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        with fixed_output(decoder(model), type(output)(last_hidden_state=hidden[None])), computing(model):
            logits = model(input_ids=targets[None], use_cache=False).logits
        return _cross_entropy(model, logits, targets)

    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(losses, *chunk, **PLAIN_CHECKPOINT) for chunk in chunks])  # type: ignore[misc,arg-type]


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
