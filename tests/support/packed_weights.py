"""Small models packed as GPTQ, AWQ and compressed-tensors save them, number by number, with the weights they hold."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # of AutoAWQ's WQLinear_GEMM: the output whose code is the n-th in an int32


@dataclass(frozen=True)
class Recipe:
    """The packing of a model: `group` inputs share a scale (-1: all), zero points differ unless `symmetric`."""

    saved: dict[str, object] = field(hash=False)
    bits: int
    group: int
    symmetric: bool = False
    act_order: bool = False


RECIPES = {
    "gptq, 4 bits": Recipe({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq"}, 4, 16),
    "gptq, 8 bits, act-order": Recipe({"quant_method": "gptq", "bits": 8}, 8, 16, act_order=True),
    "gptq, 2 bits, one group": Recipe({"quant_method": "gptq", "bits": 2}, 2, -1),
    "gptq_v2": Recipe({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}, 4, -1, act_order=True),
    "auto-round as gptq": Recipe({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}, 4, 16),
    "auto-round": Recipe({"quant_method": "auto-round", "packing_format": "auto_round"}, 4, 16),
    "awq": Recipe({"quant_method": "awq", "version": "gemm", "bits": 4}, 4, 16),
    "int8 a channel": Recipe({"quant_method": "compressed-tensors", "format": "int-quantized"}, 8, -1, symmetric=True),
    "packed": Recipe({"quant_method": "compressed-tensors", "format": "pack-quantized"}, 4, 16, act_order=True),
    "packed, symmetric": Recipe({"quant_method": "compressed-tensors", "format": "pack-quantized"}, 8, 16, True),
}


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """int32s (R, C * bits / 32) of codes (R, C), the first in the lowest bits."""
    words = np.zeros((len(codes), codes.shape[1] * bits // 32), np.uint32)
    for row, column in np.ndindex(codes.shape):
        place = column * bits
        words[row, place // 32] |= np.uint32(int(codes[row, column]) << place % 32)
    return words.view(np.int32)


def pack_layer(recipe: Recipe, shape: tuple[int, ...], draw: np.random.Generator) -> tuple[np.ndarray, dict]:
    """The weight (O, I) in float64, and the tensors that hold it."""
    (outputs, inputs), top = shape, 2**recipe.bits
    size = inputs if recipe.group == -1 else recipe.group
    groups = np.arange(inputs) // size
    if recipe.act_order:
        draw.shuffle(groups)
    codes = draw.integers(0, top, shape)
    # GPTQ's first layout cannot hold a zero point of 0, which it would store as -1.
    zeros = draw.integers(1, top, (outputs, inputs // size))
    zeros = np.full_like(zeros, top // 2) if recipe.symmetric else zeros
    scales = draw.uniform(0.5, 1.5, zeros.shape).astype(np.float16) / np.float16(10 * top)
    weight = (codes - zeros[:, groups]) * scales.astype(np.float64)[:, groups]
    kind = (str(recipe.saved["quant_method"]), recipe.saved.get("packing_format"))
    if kind[0] == "compressed-tensors":
        return weight, _compressed(recipe, codes, zeros, scales, groups)
    if kind[0] == "awq":
        order = np.arange(outputs).reshape(-1, 8)[:, AWQ_ORDER].flatten()
        arrays = {"qweight": pack(codes.T[:, order], 4), "qzeros": pack(zeros.T[:, order], 4), "scales": scales.T}
        return weight, arrays
    is_minus_one = recipe.saved.get("checkpoint_format") != "gptq_v2" and kind[1] != "auto_round"
    arrays = {"qweight": pack(codes, recipe.bits).T, "qzeros": pack(zeros.T - is_minus_one, recipe.bits)}
    return weight, arrays | {"scales": scales.T, "g_idx": groups.astype(np.int32)}


def _compressed(
    recipe: Recipe, codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, groups: np.ndarray
) -> dict[str, np.ndarray]:
    offset = 2 ** (recipe.bits - 1)
    if recipe.saved["format"] == "int-quantized":
        return {"weight": (codes - offset).astype(np.int8), "weight_scale": scales}
    arrays = {"weight_packed": pack(codes, recipe.bits), "weight_scale": scales, "weight_shape": np.array(codes.shape)}
    if recipe.act_order:
        arrays["weight_g_idx"] = groups.astype(np.int32)
    return arrays if recipe.symmetric else arrays | {"weight_zero_point": pack(zeros.T, recipe.bits).T}


def save_packed(base: Path, recipe: Recipe, packed: Path, whole: Path) -> None:
    """Two copies of a model's folder with the same new weights in its layers: packed, and whole in float32."""
    draw, state = np.random.default_rng(0), load_file(base / "model.safetensors")
    kept, held = dict(state), dict(state)
    for name in [name for name in state if ".layers." in name and state[name].ndim == 2]:
        weight, arrays = pack_layer(recipe, state[name].shape, draw)
        held[name] = torch.tensor(weight, dtype=torch.float32)
        del kept[name]
        layer = name.removesuffix(".weight")
        kept |= {f"{layer}.{part}": torch.tensor(np.ascontiguousarray(array)) for part, array in arrays.items()}
    for folder, tensors in ((packed, kept), (whole, held)):
        shutil.copytree(base, folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((packed / "config.json").read_text()) | {"quantization_config": recipe.saved}
    (packed / "config.json").write_text(json.dumps(config))
