"""The output head at chosen places and for chosen tokens only: logits there, and next-token losses.

One token's logits take 1 MB for 256,000 words, and their gradients four times that. Large ones are computed in chunks
and again in the backward pass, as in TRL and Liger (Hsu et al. 2024), but by the model's own code.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.layout import Layout
from nexttoken.errors import UserError
from nexttoken.models.sharded import is_sharded

CHUNK_LOGITS = 2**25  # 128 MiB in 32 bit


@contextmanager
def reading(model: nn.Module, reads: Tensor, columns: Sequence[int] | None = None) -> Iterator[None]:
    """Within this context `model(...)` returns logits (1, M, V) at the places `reads` (M,) of the flattened tokens.

    Hooks select the hidden states in front of the output head, inside the model's own forward. So everything around
    the head applies (soft-capping, scaling, bias, tied or quantized weights). With `columns` the logits are
    (1, M, len(columns)), and the head's other rows are not computed; a head with an adapter or of 8 bits is computed
    whole, and its columns are selected.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]

    def select_places(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, reads)[None],)

    def select_columns(_: nn.Module, __: Any, logits: Tensor) -> Tensor:
        return logits if columns is None or logits.shape[-1] == len(columns) else logits[..., list(columns)]

    handles = [head.register_forward_pre_hook(select_places), head.register_forward_hook(select_columns)]
    select_rows = None if columns is None else row_selector(head)
    forward = partial(_selected_rows, head, select_rows, list(columns or ()))
    try:
        with replaced_forward(head, forward) if select_rows else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Within this context the module's forward is `forward`; one that accelerate has set is restored afterwards."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        if before is not None:
            module.forward = before


def row_selector(head: Any) -> Any:
    """The function that selects rows of a head's weights; None for a head whose rows cannot be computed alone."""
    if "forward" in head.__dict__:  # accelerate moves it between devices
        return None
    if type(head).__name__ == "Linear4bit":
        return four_bit_rows
    is_plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward
    return whole_rows if is_plain and head.weight.is_floating_point() else None


def whole_rows(head: Any, columns: list[int]) -> Tensor:
    return head.weight[columns]


def four_bit_rows(head: Any, columns: list[int]) -> Tensor:
    """(k, H), dequantized once: 4-bit weights never change."""
    cache = head.__dict__.setdefault("_label_rows", {})
    key = tuple(columns)
    if key not in cache:
        from bitsandbytes.functional import dequantize_4bit

        with torch.inference_mode(False), torch.no_grad():  # training may need rows that a dev batch dequantized
            cache[key] = dequantize_4bit(head.weight.data, head.weight.quant_state)[columns]
    return cache[key]


def _selected_rows(head: Any, select_rows: Any, columns: list[int], hidden: Tensor) -> Tensor:
    weight = select_rows(head, columns)
    bias = None if head.bias is None else head.bias[columns]
    if select_rows is whole_rows:
        return linear(hidden, weight, bias)
    dtype = head.compute_dtype or hidden.dtype  # as in bitsandbytes
    return linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).to(hidden.dtype)


def require_head(model: nn.Module, logits: Tensor, num_read: int) -> None:
    """Raises UserError unless logits (R, J, V) are those of `num_read` places."""
    if logits.shape[1] != num_read:
        name = type(model).__name__
        raise UserError(f"{name} does not call its output head; choose a model that runs transformers' own code")


def token_losses(model: nn.Module, layout: Layout, reads: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (M,) in nats of `targets` (M,), the tokens after the places `reads` (M,) of the flattened tokens.

    The output head runs at these places only. At most CHUNK_LOGITS logits are in memory if the head is plain and the
    model calls its decoder.
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
