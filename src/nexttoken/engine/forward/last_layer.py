"""The last layer where it is read, and nowhere else: of all other places only its keys and values matter.

What stands row by row in a layer (its feed-forward part, the queries, what is done to attention's output) is computed
at the places that are read, and so is attention by segment; elsewhere the result is zero, and nobody looks there.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# As transformers' architectures call them; whoever lacks them computes the layer whole.
ROW_BY_ROW = {"mlp", "feed_forward", "ffn", "q_proj", "o_proj", "out_proj", "dense", "c_proj"}


def decoder(model: Any) -> Any:
    """The transformer under the output head, or under the classification layer, adapters included."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside peft's wrapper
    return plain.base_model


@contextmanager
def only_at(model: nn.Module, reads: Tensor) -> Iterator[None]:
    """Within this context the last layer computes only the places `reads` (M,), all different, of the flattened tokens.

    What reads which places hangs on this model's modules alone: other threads may read others in its copies.
    """
    handles, last = [], last_layer(model)
    for module in row_by_row(last):
        before, after = _hooks(reads)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    ask = _asking(reads.tolist())
    handles += [module.register_forward_pre_hook(ask, with_kwargs=True) for module in attention(last)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_layer(model: nn.Module) -> nn.Module:
    """The last one of the longest stack; without any, a module in which nothing is found."""
    stacks = [module for module in decoder(model).modules() if isinstance(module, nn.ModuleList)]
    longest = max(stacks, key=len, default=None)
    return longest[-1] if longest else nn.Module()


def row_by_row(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that treat every place by itself."""
    return list(_named(layer))


def _named(module: nn.Module) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name in ROW_BY_ROW:
            yield child
        else:
            yield from _named(child)


def attention(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that hand what they are told on to the attention function; they know their layer."""
    parts = [
        part for part in layer.modules() if part is not layer and isinstance(getattr(part, "layer_idx", None), int)
    ]
    return [part for part in parts if _takes_more(type(part).forward)]


def _takes_more(forward: Callable) -> bool:
    return any(each.kind == each.VAR_KEYWORD for each in inspect.signature(forward).parameters.values())


def _asking(reads: Sequence[int]) -> Callable:
    """Narrows attention by segment; rows that are padded pass through."""

    def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        segments = named.get("segments")
        return inputs, named if segments is None else named | {"segments": segments.only_at(reads)}

    return before


def _hooks(reads: Tensor) -> tuple[Callable, Callable]:
    shape: list[int] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        shape[:] = inputs[0].shape[:2]
        return inputs[0].flatten(0, 1).index_select(0, reads)[None], *inputs[1:]

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        return whole.index_copy(0, reads, output[0]).unflatten(0, (shape[0], shape[1]))

    return before, after
