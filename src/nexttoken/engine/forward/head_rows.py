"""Logits of the places and tokens that are read, and of nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nexttoken.errors import UserError


@contextmanager
def reading(model: nn.Module, reads: Tensor, columns: Sequence[int] | None = None) -> Iterator[None]:
    """Within this context `model(...)` returns logits (1, M, V) of the places `reads` (M,) of the flattened tokens.

    The hidden states are taken in front of the output head, inside the model's own forward, so whatever the
    architecture does around its head (soft-capping, scaling, bias, tied or quantised weights) applies as it should.
    With `columns` the head's other rows are not computed either: (1, M, len(columns)); a head that is more than its
    weights (one with an adapter, or of 8 bits) is computed whole, and its columns chosen.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]

    def chosen(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, reads)[None],)

    def narrowed(_: nn.Module, __: Any, logits: Tensor) -> Tensor:
        return logits if logits.shape[-1] == len(columns or ()) else logits[..., list(columns or ())]

    before = head.__dict__.get("forward")  # accelerate's, which stays
    handles = [head.register_forward_pre_hook(chosen)]
    if columns is not None:
        handles.append(head.register_forward_hook(narrowed))
        if rows := rows_of(head):
            head.forward = partial(_label_rows, head, rows, list(columns))
    try:
        yield
    finally:
        head.__dict__.pop("forward", None)
        if before is not None:
            head.forward = before
        for handle in handles:
            handle.remove()


def rows_of(head: nn.Module) -> Any:
    """How to take rows of a head's weights: of whole ones, of 4 bit ones, or not at all."""
    if "forward" in head.__dict__:  # moved between devices by accelerate's own
        return None
    if type(head).__name__ == "Linear4bit":
        return four_bit_rows
    weight = getattr(head, "weight", None)
    is_plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward
    return whole_rows if is_plain and weight is not None and weight.is_floating_point() else None


def whole_rows(head: Any, columns: list[int]) -> Tensor:
    return head.weight[columns]


def four_bit_rows(head: Any, columns: list[int]) -> Tensor:
    """(k, H); the weights never change, so that they are unpacked once."""
    kept = head.__dict__.setdefault("_label_rows", {})
    key = tuple(columns)
    if key not in kept:
        from bitsandbytes.functional import dequantize_4bit

        with torch.inference_mode(False), torch.no_grad():  # training, too, may need what a dev row unpacked
            kept[key] = dequantize_4bit(head.weight.data, head.weight.quant_state)[columns]
    return kept[key]


def _label_rows(head: Any, rows: Any, columns: list[int], hidden: Tensor) -> Tensor:
    weight = rows(head, columns)
    bias = None if head.bias is None else head.bias[columns]
    if rows is whole_rows:
        return linear(hidden, weight, bias)
    dtype = head.compute_dtype or hidden.dtype  # as bitsandbytes computes
    return linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).to(hidden.dtype)


def require_head(model: nn.Module, logits: Tensor, num_read: int) -> None:
    """Raises UserError unless logits (R, J, V) are those of `num_read` places."""
    if logits.shape[1] != num_read:
        raise UserError(
            f"{type(model).__name__} does not call its output head, so answers cannot be read from it; choose a model"
            " that runs transformers' own code"
        )
