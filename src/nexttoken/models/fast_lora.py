"""LoRA's branch as one operation on the CPU, where peft passes over the whole activations about six times a layer.

The scaled low-rank product is added to the base's output in place. The backward pass needs only the input, which
neighbouring layers share, and a dropout mask of one byte per element (two where the elements have 16 bits).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PLAIN = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit")}
BASES = {  # their outputs may be overwritten; a model's custom linear layer may still need its output
    ("torch.nn.modules.linear", "Linear"),
    ("transformers.pytorch_utils", "Conv1D"),
    ("bitsandbytes.nn.modules", "Linear4bit"),
}
STEPS = 2**16  # values of 16 bits; the dropout probability is rounded to a multiple of 1 / STEPS


class LoraBranch(torch.autograd.Function):
    """out + alpha * dropout(x) A^T B^T (Hu et al. 2021), in place of `out`, with the gradients written out."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor, kept: Tensor | None, alpha: float) -> Tensor:
        """`out` (..., O), contiguous; x (..., I) with as many rows; a (r, I); b (O, r); `kept`: a mask of x."""
        low = _as_rows(apply_mask(x, kept)) @ a.T
        out.view(-1, len(b)).addmm_(low, b.T, alpha=alpha)
        ctx.mark_dirty(out)
        ctx.save_for_backward(x, a, b, kept, low)
        ctx.alpha = alpha
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, a, b, kept, low = ctx.saved_tensors
        _, needs_x, needs_a, needs_b, *_ = ctx.needs_input_grad
        rows = _as_rows(gradient)
        grad_x = grad_a = grad_b = None
        if needs_b:
            grad_b = (low.T @ rows).mul_(ctx.alpha).T
        if needs_x or needs_a:
            grad_low = (rows @ b).mul_(ctx.alpha)
        if needs_a:
            grad_a = grad_low.T @ _as_rows(apply_mask(x, kept))
        if needs_x:
            grad_x = apply_mask((grad_low @ a).view(x.shape), kept)
        return gradient, grad_x, grad_a, grad_b, None, None


def _as_rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])


def apply_mask(x: Tensor, kept: Tensor | None) -> Tensor:
    """`x` with zeros where the mask of `FastDropout.draw` is 0 or False.

    Numbers of 16 bits are multiplied as integers, an eighth of the time that torch takes to select them on a CPU.
    """
    if kept is None:
        return x
    if kept.dtype == torch.bool:
        return torch.where(kept, x, 0.0)  # 1.5 times as fast as masked_fill
    return (x.view(torch.int16) * kept).view(x.dtype)


class FastDropout(nn.Dropout):
    """nn.Dropout with faster random masks on the CPU, from `generator` where one is set, else from torch's."""

    generator: torch.Generator | None = None

    def draw(self, values: Tensor) -> tuple[Tensor | None, float]:
        """A mask of the shape of `values`, 0 or False where to drop (None for nothing), and the scale of the others.

        It has the dtype int16 for values of 16 bits, else bool.
        """
        number = round(self.p * STEPS)
        if not self.training or number == 0:
            return None, 1.0
        dtype = torch.int16 if values.dtype.itemsize == 2 else torch.bool
        if number == STEPS:
            return torch.zeros_like(values, dtype=dtype), 1.0
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64, device=values.device)
        bits.random_(-(2**63), None, generator=self.generator)
        drawn = bits.view(torch.int16)[:size].view(values.shape)  # uniform from -STEPS / 2
        kept = torch.ge(drawn, number - STEPS // 2, out=torch.empty_like(drawn, dtype=dtype))
        return kept, STEPS / (STEPS - number)

    def forward(self, values: Tensor) -> Tensor:
        """Zero each of `values` with probability p and scale the others, in training; the same shape."""
        if values.device.type != "cpu":
            return super().forward(values)
        kept, scale = self.draw(values)
        return values if kept is None else torch.where(kept.bool(), values * scale, 0.0)


class FastLayer(nn.Module):
    """A base class before peft's, whose forward pass handles a single plain adapter in one precision."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., I) to (..., O), as peft computes it; under autocast in its dtype, without casts to float32 between."""
        if args or kwargs or not self._is_plain(x):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        layer: Any = self
        (name,) = layer.active_adapters
        a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
        x = x.to(products_dtype(x))
        out = layer.base_layer(x)
        if out.dtype != x.dtype:
            return (out + b(a(dropout(x))) * layer.scaling[name]).to(out.dtype)
        kept, scale = dropout.draw(x) if isinstance(dropout, FastDropout) else (None, 1.0)
        alpha = layer.scaling[name] * scale
        factors = a.weight.to(x.dtype), b.weight.to(x.dtype)
        return LoraBranch.apply(writable(out), x, *factors, kept, alpha).view(out.shape)

    def _is_plain(self, x: Tensor) -> bool:
        layer: Any = self
        name, *others = layer.active_adapters or [None]
        if x.device.type != "cpu" or layer.disable_adapters or layer.merged:
            return False
        if others or name not in layer.lora_A or name in layer.lora_variant:
            return False
        a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
        is_ours = isinstance(dropout, FastDropout) and "forward" not in vars(dropout)  # not replaced
        return (
            (is_ours or isinstance(dropout, nn.Identity))
            and b.bias is None
            and (torch.is_autocast_enabled("cpu") or x.dtype == a.weight.dtype == b.weight.dtype)
            and not layer.base_layer._forward_hooks  # they may store the output
            and "forward" not in vars(layer.base_layer)  # replaced, to compute a few outputs only
        )


def products_dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def writable(out: Tensor) -> Tensor:
    """A tensor with the values of `out` that may be overwritten: itself, the tensor that it views, or a copy.

    Autograd copies the gradient of an overwritten view, and a linear layer's output is a view of a matrix product.
    Overwriting the product itself avoids that copy.
    """
    whole, step = (out._base, out.grad_fn) if torch.is_grad_enabled() and out._is_view() else (out, None)
    if whole is None or whole.numel() != out.numel():
        return out.clone(memory_format=torch.contiguous_format)
    if step is None:
        same = whole is out or not (whole.requires_grad or out.requires_grad)
    else:  # only the shape differs in autograd's graph too
        same = step.name() == "ViewBackward0" and step.next_functions[0][0] is whole.grad_fn
    if same and whole.is_contiguous() and out.is_contiguous() and not (whole.is_leaf and whole.requires_grad):
        return whole
    return out.clone(memory_format=torch.contiguous_format)


def speed_up_lora(adapted: nn.Module) -> None:
    """Replace the dropout and the plain LoRA layers of peft's model by fast ones; weights and names stay."""
    replace_dropout(adapted)
    for module in adapted.modules():
        if _class_name(module) in PLAIN and _class_name(module.base_layer) in BASES:
            module.__class__ = _fast_class(type(module))  # type: ignore[arg-type]  # a class is hashable


def _class_name(module: Any) -> tuple[str, str]:
    """Module and name of the class: compared without importing it (bitsandbytes is slow to import)."""
    return type(module).__module__, type(module).__name__


@cache
def _fast_class(plain: type) -> type:
    return type(f"Fast{plain.__name__}", (FastLayer, plain), {})


def replace_dropout(adapted: nn.Module) -> None:
    for module in adapted.modules():
        if isinstance(dropouts := getattr(module, "lora_dropout", None), nn.ModuleDict):
            plain = {name: dropout for name, dropout in dropouts.items() if type(dropout) is nn.Dropout}
            dropouts.update({name: FastDropout(dropout.p) for name, dropout in plain.items()})
