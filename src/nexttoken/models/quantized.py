"""Frozen weights in 4 or 8 bits by bitsandbytes, imported only when they are asked for."""

import logging
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError
from nexttoken.settings import QuantizationSettings, Settings


def loading_options(
    config: Any, settings: QuantizationSettings | None, dtype: torch.dtype | str, device: torch.device
) -> dict[str, Any]:
    """What from_pretrained has to be told for the model of `config`; nothing where whole weights stay whole.

    Weights that were saved quantised stay so, whether `settings` say it or not; what they are computed in is not theirs
    to say, since they may have been saved on another device.
    Raises UserError where `settings` ask for another quantisation than the saved one.
    """
    if not isinstance(dtype, torch.dtype):
        return {}
    saved = saved_quantization(config)
    if saved is None:
        if settings is None:
            return {}
        return {"quantization_config": quantization_config(settings, dtype), "device_map": {"": device}}
    if settings is not None and describe(settings) != describe(saved):
        raise UserError(
            f"{config.name_or_path} holds weights in {describe(saved)}, which quantization={describe(settings)} cannot"
            " change; use quantization=none (they stay as they are) or name the whole weights"
        )
    wanted = saved.model_copy(update={"compute_dtype": settings.compute_dtype if settings else "auto"})
    config.quantization_config = quantization_config(wanted, dtype).to_dict()
    return {"config": config, "device_map": {"": device}}


def saved_quantization(config: Any) -> QuantizationSettings | None:
    """How bitsandbytes had quantised the weights that `config` describes; None where it had not."""
    saved = getattr(config, "quantization_config", None) or {}
    if saved.get("quant_method") != "bitsandbytes":
        return None
    if saved.get("load_in_8bit"):
        return QuantizationSettings(bits=8)
    return QuantizationSettings(
        bits=4,
        quant_type=saved["bnb_4bit_quant_type"],
        double=saved["bnb_4bit_use_double_quant"],
    )


def describe(settings: QuantizationSettings) -> str:
    """`nf4 with double quantisation`, `fp4`, `int8`: all that decides what the quantised weights are."""
    if settings.bits == 8:
        return "int8"
    double = " with double quantisation" if settings.double else ""
    return settings.quant_type + double


def refuse_untrainable(config: Any, settings: Settings) -> None:
    """Raise UserError where weights that were saved quantised, by whatever method, would have to be something else."""
    saved = getattr(config, "quantization_config", None)
    if not saved or not settings.trainer.max_epochs:
        return
    if settings.adapter is None:
        raise UserError(
            f"the weights of {settings.model.name_or_path} are quantised ({saved.get('quant_method')}) and cannot be"
            " trained; add adapter=lora (QLoRA), or trainer.max_epochs=0 to ask them as is"
        )
    if settings.adapter.init == "loftq":
        raise UserError(
            f"adapter.init=loftq starts from the whole weights, and those of {settings.model.name_or_path} are"
            " quantised; name the model they were made from, or use another init"
        )


def quantization_config(settings: QuantizationSettings, dtype: torch.dtype) -> Any:
    """What transformers quantises by while it loads: all linear layers but the output head.

    Products are computed in `dtype` unless the settings name another.
    """
    from transformers import BitsAndBytesConfig

    compute_dtype = dtype if settings.compute_dtype == "auto" else getattr(torch, settings.compute_dtype)
    if settings.bits == 8:
        # Of every product it would say again that its inputs are rounded to 16 bit first.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quant_type,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def four_bit_layers(model: nn.Module) -> list[Any]:
    if not getattr(model, "is_loaded_in_4bit", False):
        return []  # without importing bitsandbytes
    from bitsandbytes.nn import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def keep_trainable(model: nn.Module) -> None:
    """Forbid the packing that bitsandbytes 0.50 does at the first evaluation on CPUs with AVX512-BF16.

    The packed weights are never unpacked: gradients after it are silently wrong, and so is what is saved or merged.
    """
    for layer in four_bit_layers(model):
        layer.support_avx512bf16_for_cpu = False


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; two share a byte of 4-bit storage."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
