"""The output head in float32: products for the labels' tokens do not keep the 16 bits of the weights.

In 16 bits, logits near 24 are rounded to steps of 0.125: labels tie, and the first of them wins too often.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from nexttoken.models.precision import exact_products

CHUNK = 2**25  # numbers in memory at a time: 128 MiB in 32 bit
CPU_PART = 2**19  # weights cast up at a time: 2 MiB stay in a processor's cache, 2.5 times as fast as all at once
PLAIN_CHECKPOINT: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # it draws no random numbers


@contextmanager
def in_float32(head: Any, columns: Sequence[int] | None = None) -> Iterator[None]:
    """Within this context a head multiplies in float32, without autocast, and returns its outputs `columns` (all).

    A head of another kind (with a forward of its own, quantised by another library) stays as it is; its columns are
    selected and cast up.
    """
    chosen = None if columns is None else list(columns)
    layers = linear_layers(head)
    selects = not any(getattr(layer, "lora_variant", None) for layer in head.modules())  # DoRA scales whole rows

    def cast_up(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].float(), *inputs[1:]) if layers else inputs

    def select_columns(_: nn.Module, __: Any, logits: Tensor) -> Tensor:
        return (logits if chosen is None or logits.shape[-1] == len(chosen) else logits[..., chosen]).float()

    with ExitStack() as stack:
        for handle in (head.register_forward_pre_hook(cast_up), head.register_forward_hook(select_columns)):
            stack.callback(handle.remove)
        num_outputs = max((layer.out_features for layer in layers), default=0)
        for layer in layers:
            rows = chosen if selects and layer.out_features == num_outputs else None
            forward = partial(multiply_in_float32, layer, row_selector(layer), rows)
            stack.enter_context(replaced_forward(layer, forward))
        yield


def linear_layers(head: Any) -> list[Any]:
    """The linear layers that a head consists of: itself, or peft's base and adapters; none for any other head."""
    if row_selector(head):
        return [head]
    is_of_peft = hasattr(head, "base_layer") or hasattr(head, "modules_to_save")
    return [layer for layer in head.modules() if row_selector(layer)] if is_of_peft else []


def multiply_in_float32(layer: Any, select_rows: Any, rows: list[int] | None, hidden: Tensor) -> Tensor:
    """The outputs `rows` (all) of a linear layer for `hidden` (..., H), in float32."""
    with torch.autocast(hidden.device.type, enabled=False), exact_products(hidden.device):
        weight, bias = select_rows(layer, rows), layer.bias
        outputs = _float32_product(hidden.float(), weight)
    return outputs if bias is None else outputs + (bias if rows is None else bias[rows]).float()


def _float32_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden W^T. A 16-bit W is cast up in parts, and again in the backward pass, since the whole may be large."""

    def multiply(hidden: Tensor, part: Tensor) -> Tensor:
        return linear(hidden, part.float())

    size = max(1, (CPU_PART if hidden.device.type == "cpu" else CHUNK) // weight.shape[1])
    if weight.dtype == torch.float32 or len(weight) <= size:
        return multiply(hidden, weight)
    again = partial(checkpoint, multiply, **PLAIN_CHECKPOINT) if torch.is_grad_enabled() else multiply
    return torch.cat([again(hidden, part) for part in weight.split(size)], dim=-1)


@contextmanager
def replaced_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Within this context the module's forward is `forward`; accelerate still moves its weights before and after it."""
    name = "_old_forward" if "_old_forward" in vars(module) else "forward"
    before = module.__dict__.get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        module.__dict__.pop(name, None)
        if before is not None:
            setattr(module, name, before)


def row_selector(layer: Any) -> Any:
    """The function that selects rows of a layer's weights; None for a layer that is more than a product with them."""
    if "forward" in vars(layer) and "_old_forward" not in vars(layer):
        return None
    by_name = {"Linear4bit": four_bit_rows, "Linear8bitLt": eight_bit_rows}
    if type(layer).__module__ == "bitsandbytes.nn.modules" and type(layer).__name__ in by_name:
        return by_name[type(layer).__name__]
    is_plain = isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward
    return whole_rows if is_plain and layer.weight.is_floating_point() else None


def whole_rows(layer: Any, rows: list[int] | None) -> Tensor:
    return layer.weight if rows is None else layer.weight[rows]


def four_bit_rows(layer: Any, rows: list[int] | None) -> Tensor:
    """(k, H), dequantized; a few rows are kept, since 4-bit weights never change."""
    from bitsandbytes.functional import dequantize_4bit

    with torch.inference_mode(False), torch.no_grad():  # training may need rows that a dev batch dequantized
        if rows is None:
            return dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        cache, key = layer.__dict__.setdefault("_label_rows", {}), tuple(rows)
        if key not in cache:
            cache[key] = dequantize_4bit(layer.weight.data, layer.weight.quant_state)[rows]
    return cache[key]


def eight_bit_rows(layer: Any, rows: list[int] | None) -> Tensor:
    """(k, H) float32: whole numbers up to 127 with a scale a row (LLM.int8, Dettmers et al. 2022)."""
    numbers, scales = (
        getattr(layer.state, name) if getattr(layer.weight, name) is None else getattr(layer.weight, name)
        for name in ("CB", "SCB")  # moved to the state by the first pass
    )
    if rows is not None:
        numbers, scales = numbers[rows], scales[rows]
    return numbers.float() * (scales.float() / 127)[:, None]
