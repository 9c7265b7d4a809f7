"""transformers' loading of models whose weights GPTQ, AWQ, AutoRound or compressed-tensors packed.

Importing this makes METHOD known to transformers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from nexttoken.errors import UserError
from nexttoken.models.packed_formats import NAMES, packing_of, read_values

MAX_BLOCK = 2**18  # weights that are unpacked at a time, in float32
METHOD = "nexttoken_packed"  # in place of the saved method, for which transformers would ask for its package


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


def read_packed(config: Any) -> None:
    """Change a configuration of packed weights so that from_pretrained loads them as `PackedLinear`.

    Raises UserError for a layout that is not read.
    """
    packing_of(config.quantization_config)
    config.quantization_config = {"quant_method": METHOD, "saved": config.quantization_config}


def replace_linear(model: nn.Module, packing: str, files: list[str]) -> None:
    """Put layers for packed weights where the safetensors files have them. Raises UserError if none has any."""
    saved = dict(_read_headers(files))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = False
    for name, layer in layers.items():
        tensors = {one: saved[f"{name}.{one}"] for one in _saved_names(name, saved)}
        if tensors:
            found = True
            _check(name, layer, packing, tensors)
            model.set_submodule(name, PackedLinear(layer, packing, tensors))
    if not found:
        raise UserError(f"{files[0]} has no packed weight of this architecture; give a complete checkpoint")


def _check(name: str, layer: nn.Linear, packing: str, tensors: Mapping[str, Tensor]) -> None:
    try:
        read_values(tensors, packing, layer.in_features, layer.out_features)
    except (UserError, KeyError) as error:
        raise UserError(f"{name}: {error}") from None


def _saved_names(name: str, saved: Mapping[str, Tensor]) -> list[str]:
    """The tensors of a packed layer; none for a layer that was left whole."""
    for first, names in NAMES.items():
        if f"{name}.{first}" in saved and (first != "weight" or f"{name}.weight_scale" in saved):
            return [one for one in (*names, "bias") if f"{name}.{one}" in saved]
    return []


def _read_headers(files: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of safetensors files by name, without their content: on the meta device."""
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                cut = file.get_slice(name)
                dtype = file.get_slice(name)[:0].dtype if cut.get_shape() else file.get_tensor(name).dtype
                yield name, torch.empty(cut.get_shape(), dtype=dtype, device="meta")


@register_quantization_config(METHOD)
class PackedConfig(QuantizationConfigMixin):
    """The saved `quantization_config`, which `to_dict` returns."""

    def __init__(self, saved: dict[str, Any], **_: Any) -> None:
        self.quant_method, self.saved = METHOD, saved  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        return self.saved


@register_quantizer(METHOD)
class PackedQuantizer(HfQuantizer):
    """Puts `PackedLinear` in place before weights are loaded; `dequantize` puts whole layers back."""

    def _process_model_before_weight_loading(self, model: Any, **options: Any) -> None:
        files = [str(path) for path in options.get("checkpoint_files") or [] if str(path).endswith(".safetensors")]
        if not files:
            raise UserError("packed weights are read from safetensors only; give a checkpoint that has them")
        replace_linear(model, packing_of(self.quantization_config.to_dict()), files)

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        return whole_linear(model, dtype or model.dtype)

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True
