"""The last layer where it is read, and nowhere else: of all other places only its keys and values matter.

What stands row by row in a layer (its feed-forward part, the queries, what is done to attention's output) is computed
at the places that are read; elsewhere its result is zero, and nobody looks there.
"""

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


def row_by_row(model: nn.Module) -> list[nn.Module]:
    """The parts of the last layer that treat every place by itself."""
    stacks = [module for module in decoder(model).modules() if isinstance(module, nn.ModuleList)]
    longest = max(stacks, key=len, default=None)
    return list(_named(longest[-1])) if longest else []


def _named(module: nn.Module) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name in ROW_BY_ROW:
            yield child
        else:
            yield from _named(child)


@contextmanager
def only_at(modules: Sequence[nn.Module], reads: Tensor) -> Iterator[None]:
    """Within this context `modules` compute only the places `reads` (M,), all different, of the flattened tokens."""
    handles = []
    for module in modules:
        before, after = _hooks(reads)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(reads: Tensor) -> tuple[Callable, Callable]:
    shape: list[int] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        shape[:] = inputs[0].shape[:2]
        return inputs[0].flatten(0, 1).index_select(0, reads)[None], *inputs[1:]

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        return whole.index_copy(0, reads, output[0]).unflatten(0, (shape[0], shape[1]))

    return before, after
