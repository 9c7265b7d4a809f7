"""transformers' loading of models whose weights GPTQ, AWQ, AutoRound or compressed-tensors packed.

Importing this makes METHOD known to transformers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from nexttoken.errors import UserError
from nexttoken.models.packed_formats import NAMES, packing_of, read_values
from nexttoken.models.packed_linear import PackedLinear, whole_linear

METHOD = "nexttoken_packed"  # in place of the saved method, for which transformers would ask for its package


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
