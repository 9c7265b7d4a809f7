"""Frozen weights in 4 or 8 bits by bitsandbytes, which is imported only when it is needed."""

import logging
import sys
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError
from nexttoken.models.packed_formats import is_packed
from nexttoken.models.streamed import layer_stream
from nexttoken.settings import QuantizationSettings, Settings


def import_bitsandbytes() -> None:
    """Import bitsandbytes, if it is installed, without `kernels`, with which it would fetch native code from a hub.

    It tries to on CPUs with bf16 units. peft imports bitsandbytes too, so this comes before peft.
    """
    absent = object()
    before = sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's way to refuse an import
    try:
        with suppress(ImportError):
            import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if before is not absent:
            sys.modules["kernels"] = before  # type: ignore[assignment]


def loading_options(
    config: Any, settings: QuantizationSettings | None, dtype: torch.dtype | str, device: torch.device
) -> dict[str, Any]:
    """Options of from_pretrained that load the model of `config` straight to `device`, quantised where that is asked.

    Weights that were saved quantised stay so, those that other tools packed as `PackedLinear`; `config` is changed to
    compute them in `dtype`, since they may have been saved on another device. Raises UserError where `settings` differ
    from the saved quantisation.
    """
    saved = saved_quantization(config)
    wanted = settings or saved
    options: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    if is_packed(config):
        from nexttoken.models.packed_loading import read_packed

        if settings is not None:
            method = config.quantization_config["quant_method"]
            raise UserError(f"{config.name_or_path} holds weights in {method} already; use quantization=none")
        read_packed(config)
        return options
    if wanted is None or not isinstance(dtype, torch.dtype):
        return options
    if saved is not None and describe(wanted) != describe(saved):
        raise UserError(
            f"{config.name_or_path} holds weights in {describe(saved)}, which quantization={describe(wanted)} cannot"
            " change; use quantization=none (they stay as they are) or name the whole weights"
        )
    import_bitsandbytes()
    options = {"device_map": {"": device}}
    if saved is None:
        return options | {"quantization_config": _bitsandbytes_config(wanted, dtype)}
    config.quantization_config = _bitsandbytes_config(wanted, dtype).to_dict()
    return options


def saved_quantization(config: Any) -> QuantizationSettings | None:
    """The quantisation by bitsandbytes of the weights that `config` describes; None without one."""
    saved = getattr(config, "quantization_config", None) or {}
    if saved.get("quant_method") != "bitsandbytes":
        return None
    if saved.get("load_in_8bit"):
        return QuantizationSettings(bits=8)
    quant_type, double = saved["bnb_4bit_quant_type"], saved["bnb_4bit_use_double_quant"]
    return QuantizationSettings(bits=4, quant_type=quant_type, double=double)


def describe(settings: QuantizationSettings) -> str:
    """`nf4 with double quantisation`, `fp4` or `int8`: everything that determines the quantised weights."""
    four_bit = settings.quant_type + (" with double quantisation" if settings.double else "")
    return "int8" if settings.bits == 8 else four_bit


def refuse_untrainable(config: Any, settings: Settings) -> None:
    """Raise UserError where the training needs whole weights and they were saved quantised, or all weights at once."""
    if not settings.trainer.max_epochs:
        return
    if settings.model.stream_layers:
        raise UserError(
            "model.stream_layers=true is for answers only; leave it out here, and give stream_layers=true to predict.py"
        )
    if not (saved := getattr(config, "quantization_config", None)):
        return
    if settings.adapter is None:
        raise UserError(
            f"the weights of {settings.model.name_or_path} are quantised ({saved.get('quant_method')}) and cannot be"
            " trained; add adapter=lora (QLoRA), or trainer.max_epochs=0 to use them without training"
        )
    if settings.adapter.dora and is_packed(config):
        raise UserError(
            f"adapter.dora needs the whole weights, and those of {settings.model.name_or_path} are packed"
            f" ({saved['quant_method']}); use adapter.dora=false"
        )
    if settings.adapter.init == "loftq":
        raise UserError(
            f"adapter.init=loftq starts from the whole weights, and those of {settings.model.name_or_path} are"
            " quantised; name the model they were made from, or use another init"
        )


def _bitsandbytes_config(settings: QuantizationSettings, dtype: torch.dtype) -> Any:
    """The quantisation of all linear layers but the output head; computed in `dtype` unless settings name another."""
    from transformers import BitsAndBytesConfig

    if settings.bits == 8:
        # It would report for every product that inputs are rounded to 16 bit.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quant_type,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=dtype if settings.compute_dtype == "auto" else getattr(torch, settings.compute_dtype),
    )


def move_model(model: Any, device: torch.device) -> Any:
    """Put a model on its device, its 8-bit weights once.

    A module that moves leaves the weights behind that an 8-bit layer computes with. Lightning puts a trained model on
    the CPU, and moving it back would add a second copy of its 8-bit weights on the device.
    """
    layers = _layers(model, "Linear8bitLt")
    if layer_stream(model) is not None:
        return model  # it was loaded to its device
    holders = [layer.weight if layer.state.CB is None else layer.state for layer in layers]
    pairs = [(layer, holder) for layer, holder in zip(layers, holders, strict=True) if holder.CB is not None]
    for layer, holder in pairs:
        layer.weight.data = holder.CB
    model = model.to(device)
    for layer, holder in pairs:
        holder.CB, holder.SCB = layer.weight.data, holder.SCB.to(device)
    return model


def four_bit_layers(model: nn.Module) -> list[Any]:
    return _layers(model, "Linear4bit")


def _layers(model: nn.Module, kind: str) -> list[Any]:
    if "bitsandbytes" not in sys.modules:
        return []  # no layer of it can be in memory
    import bitsandbytes

    return [module for module in model.modules() if isinstance(module, getattr(bitsandbytes.nn, kind))]


def keep_trainable(model: nn.Module) -> None:
    """Forbid the packing that bitsandbytes 0.50 does at the first evaluation on CPUs with AVX512-BF16.

    The packed weights are never unpacked: gradients after it are silently wrong, and so are saved or merged weights.
    """
    for layer in four_bit_layers(model):
        layer.support_avx512bf16_for_cpu = False


def num_weights(parameter: nn.Parameter) -> int:
    """Number of weights of a parameter; in 4 bit two of them share a byte of storage."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
