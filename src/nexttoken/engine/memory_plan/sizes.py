"""Sizes in bytes of weights, adapter, gradients and optimizer states, which stay in memory for a whole run."""

from collections.abc import Iterable, Iterator
from math import ceil
from typing import Any

from torch import Tensor, nn

from nexttoken.settings import QuantizationSettings

# As in bitsandbytes:
BLOCK = 64  # 4-bit weights that share a scale
SCALE_BLOCK = 256  # scales (double quantization) or optimizer states that share a scale
CODEBOOK_BYTES = 4 * 16  # the values of the sixteen 4-bit codes
SCALE_CODEBOOK_BYTES = 4 * 256 + 4  # the values of an 8-bit scale's codes, and the scales' mean
MIN_8BIT_SIZE = 4096  # smaller tensors have 32-bit states in the 8-bit optimizers


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weight_bytes(model: Any, quantization: QuantizationSettings | None) -> int:
    """A model's weights; with `quantization`, its linear layers as bitsandbytes stores them."""
    total = stored_bytes(model.parameters())
    if quantization is None:
        return total
    weights = [layer.weight for layer in quantized_layers(model)]
    return total - stored_bytes(weights) + sum(_quantized(weight, quantization) for weight in weights)


def quantized_layers(model: Any) -> Iterator[nn.Linear]:
    """All linear layers but the output: transformers leaves a head, and a classification layer, as they are."""
    head = model.get_output_embeddings() or getattr(model, "score", None)
    return (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)


def _quantized(weight: Tensor, quantization: QuantizationSettings) -> int:
    """Dettmers et al.: LLM.int8 (2022) has one float32 scale a row; QLoRA (2023) one a block, in 8 bit if `double`."""
    if quantization.bits == 8:
        return weight.numel() + 4 * weight.shape[0]
    num_scales = ceil(weight.numel() / BLOCK)
    scales = 4 * num_scales
    if quantization.double:
        scales = num_scales + 4 * ceil(num_scales / SCALE_BLOCK) + SCALE_CODEBOOK_BYTES
    return ceil(weight.numel() / 2) + CODEBOOK_BYTES + scales


def dequantized_bytes(model: Any, itemsize: int) -> int:
    """The largest quantized layer, dequantized for its product; one at a time."""
    return max((layer.weight.numel() for layer in quantized_layers(model)), default=0) * itemsize


def optimizer_bytes(kind: str, parameters: Iterable[Tensor]) -> int:
    """AdamW's two states of each trained number: float32, or 8 bit with a float32 scale a block (Dettmers 2021)."""
    return sum(_states(kind, parameter.numel()) for parameter in parameters)


def _states(kind: str, numel: int) -> int:
    if kind.endswith("8bit") and numel >= MIN_8BIT_SIZE:
        return 2 * (numel + 4 * ceil(numel / SCALE_BLOCK))
    return 8 * numel
