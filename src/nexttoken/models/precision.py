"""The computing context of a model: one dtype for its products in training, on dev rows and in prediction.

Weights that are trained, adapters included, are float32 beside 16-bit ones; autocast brings both to one dtype.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

PRECISIONS = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}  # Lightning's names
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def compute_in(model: Any, dtype: torch.dtype | None) -> None:
    """Set the dtype of products in `computing(model)` (None: that of the weights), also of adapters added later.

    Where products stay in float32, a GPU computes them in TF32.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain.autocast_dtype = dtype
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def autocast_dtype(model: Any) -> torch.dtype | None:
    """The dtype of a model's products; None for the dtype of its weights."""
    return getattr(model, "autocast_dtype", None)


def computing(model: nn.Module) -> AbstractContextManager[Any]:
    """Context of a forward pass. The backward pass does not belong in it: autocast would round gradients.

    Casts are not kept: each weight is used once in a pass, and a copy of all weights would stay in memory.
    """
    dtype = autocast_dtype(model)
    if dtype is None:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype, cache_enabled=False)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within this context a GPU multiplies float32 without TF32, which keeps 10 bits of a factor."""
    before = torch.get_float32_matmul_precision()
    if device.type != "cuda" or before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
