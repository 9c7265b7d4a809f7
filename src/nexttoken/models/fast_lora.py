"""LoRA's branch in one operation on the CPU, where peft passes over the whole activations about six times a layer.

The low-rank product is added to the base's output where that lies, with both scales folded into it; what is kept for
the backward pass is the input, which neighbouring layers share, and a mask of one byte an element.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PLAIN = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit")}
BASES = {  # whose output nobody needs as it was; a model's own linear layer may keep it, for its gradient or otherwise
    ("torch.nn.modules.linear", "Linear"),
    ("transformers.pytorch_utils", "Conv1D"),
    ("bitsandbytes.nn.modules", "Linear4bit"),
}
STEPS = 2**16  # values of 16 bits; the probability is rounded to these, and the scale goes by the rounded one


class Branch(torch.autograd.Function):
    """out + alpha * dropped(x) A^T B^T (Hu et al. 2021), in place of `out`, with the gradients written out."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor, dropped: Tensor | None, alpha: float) -> Tensor:
        """`out` (..., O), contiguous, and x (..., I) with as many rows; a (r, I), b (O, r), dropped as x or None."""
        low = _rows(_kept(x, dropped)) @ a.T
        out.view(-1, len(b)).addmm_(low, b.T, alpha=alpha)
        ctx.mark_dirty(out)
        ctx.save_for_backward(x, a, b, dropped, low)
        ctx.alpha = alpha
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, a, b, dropped, low = ctx.saved_tensors
        _, wants_x, wants_a, wants_b, *_ = ctx.needs_input_grad
        rows = _rows(gradient)
        of_x = of_a = of_b = None
        if wants_b:
            of_b = (low.T @ rows).mul_(ctx.alpha).T
        if wants_x or wants_a:
            of_low = (rows @ b).mul_(ctx.alpha)
        if wants_a:
            of_a = of_low.T @ _rows(_kept(x, dropped))
        if wants_x:
            of_x = (of_low @ a).view(x.shape)
            if dropped is not None:
                torch.where(dropped, of_x.new_zeros(()), of_x, out=of_x)
        return gradient, of_x, of_a, of_b, None, None


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])


def _kept(x: Tensor, dropped: Tensor | None) -> Tensor:
    return x if dropped is None else torch.where(dropped, 0.0, x)  # masked_fill takes half as long again


class QuickDropout(nn.Dropout):
    """nn.Dropout with its own masks on the CPU (Srivastava et al. 2014).

    They are drawn from `generator` where one is set, and from torch's own otherwise.
    """

    generator: torch.Generator | None = None

    def draw(self, values: Tensor) -> tuple[Tensor | None, float]:
        """What to drop of `values` on the CPU, True in their shape or None for nothing, and the scale of the rest."""
        number = round(self.p * STEPS)
        if not self.training or number == 0:
            return None, 1.0
        if number == STEPS:
            return torch.ones_like(values, dtype=torch.bool), 1.0
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64, device=values.device)
        bits.random_(-(2**63), None, generator=self.generator)
        drawn = bits.view(torch.int16)[:size].view(values.shape)  # from -STEPS / 2 on, all equally likely
        return drawn < number - STEPS // 2, STEPS / (STEPS - number)

    def forward(self, values: Tensor) -> Tensor:
        """Zero each of `values` with probability p and scale the others, in training; the same shape."""
        if values.device.type != "cpu":
            return super().forward(values)
        dropped, scale = self.draw(values)
        return values if dropped is None else torch.where(dropped, 0.0, values * scale)


class QuickLayer(nn.Module):
    """Stands in front of peft's class and takes over its forward pass for one plain adapter in one precision."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., I) to (..., O), as peft computes it."""
        if args or kwargs or not self._is_plain(x):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        layer: Any = self
        (name,) = layer.active_adapters
        a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
        out = layer.base_layer(x)
        if out.dtype != x.dtype:
            return (out + b(a(dropout(x))) * layer.scaling[name]).to(out.dtype)
        dropped, scale = dropout.draw(x) if isinstance(dropout, QuickDropout) else (None, 1.0)
        alpha = layer.scaling[name] * scale
        return Branch.apply(writable(out), x, a.weight, b.weight, dropped, alpha).view(out.shape)

    def _is_plain(self, x: Tensor) -> bool:
        layer: Any = self
        names = layer.active_adapters
        if x.device.type != "cpu" or layer.disable_adapters or layer.merged or torch.is_autocast_enabled("cpu"):
            return False
        if len(names) != 1 or names[0] not in layer.lora_A or names[0] in layer.lora_variant:
            return False
        a, b, dropout = layer.lora_A[names[0]], layer.lora_B[names[0]], layer.lora_dropout[names[0]]
        draws = isinstance(dropout, QuickDropout) and "forward" not in vars(dropout)  # nobody has replaced it
        return (
            (draws or isinstance(dropout, nn.Identity))
            and b.bias is None
            and x.dtype == a.weight.dtype == b.weight.dtype
            and not layer.base_layer._forward_hooks  # which may keep the output
        )


def writable(out: Tensor) -> Tensor:
    """`out` as memory that may be written to: itself, the whole that it is a view of, or else a copy.

    Autograd copies the gradient of a view that was written to, and a product of rows (addmm) is a view once it has its
    batch's shape back. Written to the whole, there is nothing to copy.
    """
    whole = _viewed(out) if torch.is_grad_enabled() and out._is_view() else out
    if whole.is_contiguous() and out.is_contiguous() and not (whole.is_leaf and whole.requires_grad):
        return whole
    return out.clone(memory_format=torch.contiguous_format)


def _viewed(out: Tensor) -> Tensor:
    """The whole under `out`, where that is the same numbers and the same step in autograd's graph; or `out` copied."""
    whole, step = out._base, out.grad_fn
    if whole is None or whole.numel() != out.numel():
        return out.clone()
    if step is None:
        return out.clone() if whole.requires_grad or out.requires_grad else whole
    is_shape_alone = step.name() == "ViewBackward0" and step.next_functions[0][0] is whole.grad_fn
    return whole if is_shape_alone else out.clone()


def quicken(adapted: nn.Module) -> None:
    """Make the dropout and the plain LoRA layers of peft's model quick on the CPU; its weights and names stay."""
    draw_quickly(adapted)
    for module in adapted.modules():
        if _kind(module) in PLAIN and _kind(module.base_layer) in BASES:
            module.__class__ = _quick_class(type(module))  # type: ignore[arg-type]  # a class is hashable


def _kind(module: Any) -> tuple[str, str]:
    """The class by name: nothing is imported for it, least of all bitsandbytes."""
    return type(module).__module__, type(module).__name__


@cache
def _quick_class(plain: type) -> type:
    return type(f"Quick{plain.__name__}", (QuickLayer, plain), {})


def draw_quickly(adapted: nn.Module) -> None:
    """Put these in place of the dropout in front of each adapter matrix."""
    for module in adapted.modules():
        places = getattr(module, "lora_dropout", None)
        if isinstance(places, nn.ModuleDict):
            plain = {name: place for name, place in places.items() if type(place) is nn.Dropout}
            places.update({name: QuickDropout(place.p) for name, place in plain.items()})
