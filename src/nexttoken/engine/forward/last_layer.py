"""Computes the last layer only at the places whose output is used; all other places need only its keys and values.

The position-wise modules (feed-forward part, query and output projections) and segment attention run at these places;
the layer's output elsewhere is zero and is never used.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# Names in transformers' architectures; a layer without them is computed whole.
POSITION_WISE = {"mlp", "feed_forward", "ffn", "q_proj", "o_proj", "out_proj", "dense", "c_proj"}


def unwrapped(model: Any) -> Any:
    """The model inside peft's wrapper, adapters included."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> Any:
    """The transformer under the output head or the classification layer, adapters included."""
    return unwrapped(model).base_model


@contextmanager
def only_at(model: nn.Module, reads: Tensor) -> Iterator[None]:
    """Within this context the last layer computes only the places `reads` (M,), all different, of the flattened tokens.

    The hooks are on this model's modules only, so other threads may compute other places in its copies.
    """
    places = reads.tolist()

    def limit_queries(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        segments = named.get("segments")  # None for padded rows
        return inputs, named if segments is None else named | {"segments": segments.only_at(places)}

    handles, last = [], last_layer(model)
    for module in position_wise(last):
        before, after = _hooks(reads)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    handles += [module.register_forward_pre_hook(limit_queries, with_kwargs=True) for module in attention(last)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_layer(model: nn.Module) -> nn.Module:
    """The last of `decoder_layers`; an empty module if there is none."""
    layers = decoder_layers(model)
    return layers[-1] if layers else nn.Module()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The model's layers in order: its longest ModuleList; an empty one if there is none."""
    stacks = [module for module in decoder(model).modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=nn.ModuleList())


def position_wise(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost parts of a layer that treat every place independently."""
    for name, child in module.named_children():
        if name in POSITION_WISE:
            yield child
        else:
            yield from position_wise(child)


def attention(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that pass their keyword arguments on to the attention function; they have a layer_idx."""
    _, *parts = layer.modules()
    parts = [part for part in parts if isinstance(getattr(part, "layer_idx", None), int)]
    signatures = [inspect.signature(type(part).forward).parameters.values() for part in parts]
    return [part for part, args in zip(parts, signatures, strict=True) if any(a.kind == a.VAR_KEYWORD for a in args)]


def _hooks(reads: Tensor) -> tuple[Callable, Callable]:
    shape: list[int] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        shape[:] = inputs[0].shape[:2]
        return inputs[0].flatten(0, 1).index_select(0, reads)[None], *inputs[1:]

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        return whole.index_copy(0, reads, output[0]).unflatten(0, (shape[0], shape[1]))

    return before, after
