"""Layers whose weights stay packed as other tools saved them.

The values of a weight exist only during its product, in the dtype of the computation. So the model takes the memory of
its file on any device, and needs no kernels of another package.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nexttoken.models.packed_formats import read_values

MAX_BLOCK = 2**18  # weights that are unpacked at a time, in float32


class PackedLinear(nn.Linear):
    """A linear layer without a parameter for its weight: the saved tensors are buffers under their saved names."""

    def __init__(self, linear: nn.Linear, packing: str, tensors: Mapping[str, Tensor]) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.packing = linear.in_features, linear.out_features, packing
        self.names = tuple(tensors.keys() - {"bias"})
        self.register_parameter("weight", None)
        if "weight" in tensors:
            del self._parameters["weight"]
        for name in self.names:
            self.register_buffer(name, tensors[name])
        self.bias = linear.bias
        if self.bias is None and "bias" in tensors:  # GPTQ saves one for every layer
            self.bias = nn.Parameter(tensors["bias"], requires_grad=False)

    def values(self, dtype: torch.dtype) -> Tensor:
        """The weight (O, I) in `dtype`, rounded once. Raises UserError as `read_values` does."""
        tensors = {name: getattr(self, name) for name in self.names}
        values = read_values(tensors, self.packing, self.in_features, self.out_features)
        sizes = (self.in_features, self.out_features) if values.is_transposed else (self.out_features, self.in_features)
        whole = torch.empty(sizes, dtype=dtype, device=tensors[self.names[0]].device)
        step = max(MAX_BLOCK // sizes[1] // values.step, 1) * values.step
        for start in range(0, values.size, step):
            end = min(start + step, values.size)
            whole[start:end] = values.rows(start, end)
        return whole.T if values.is_transposed else whole

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O), under autocast in its dtype."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y = PackedProduct.apply(x.to(dtype), self)
        return y if self.bias is None else y + self.bias.to(dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.packing}"


class PackedProduct(torch.autograd.Function):
    """x W^T, where W is unpacked again for the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return x @ layer.values(x.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient @ ctx.layer.values(ctx.dtype), None


def whole_linear(model: Any, dtype: torch.dtype) -> Any:
    """The model with plain linear layers in place of packed ones, in `dtype`."""
    for name, layer in [pair for pair in model.named_modules() if isinstance(pair[1], PackedLinear)]:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.values(dtype).contiguous(), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain)
    return model
