"""16-bit weights on a CPU that has no units for them: they stay as they are, and products are computed in float32.

There torch multiplies 16-bit matrices several times as slowly as float32 ones (docs/speed.md). A matrix that is widened
where it is used costs one pass over it a batch, and activations keep float32's digits.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """What a model with such weights is computed in: their own dtype, or float32 on a CPU that is slow in it."""
    is_slow = dtype.itemsize == 2 and not torch.cuda.is_available() and not has_units(dtype)
    return torch.float32 if is_slow else dtype


@cache
def has_units(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices of this 16-bit dtype itself (AVX-512, AMX, or ARM's)."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    return any(name in ability and there for ability, there in torch.cpu.get_capabilities().items())


def widen(model: Any) -> None:
    """Make a frozen model whose dtype this machine is slow in compute in float32, in place; any other stays as it is.

    Linear layers widen their matrix when they are called, embeddings what they have looked up; what is small (norms,
    biases) is float32 from now on, and so is whatever else has weights, such as the experts of a mixture.
    """
    if computed_in(model.dtype) == model.dtype:
        return
    kept = set()
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear
        elif isinstance(module, nn.Embedding):
            module.register_forward_hook(_looked_up)
        else:
            continue
        kept.add(id(module.weight))
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.data = parameter.data.float()


def _looked_up(_: nn.Module, __: Any, found: Tensor) -> Tensor:
    return found.float()


class WideLinear(nn.Linear):
    """A linear layer whose matrix has fewer digits than what goes through it."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O), in the dtype of `x`."""
        if self.weight.requires_grad or not torch.is_grad_enabled():
            return linear(x, self.weight.to(x.dtype), self.bias)
        return Widened.apply(x, self.weight, self.bias)


class Widened(torch.autograd.Function):
    """x W^T + b, where autograd would keep the widened matrix of every layer until the gradients are there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight.to(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None, None
