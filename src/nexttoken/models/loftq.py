"""LoftQ initialisation (Li et al. 2023): an adapter that starts as the error of 4-bit quantisation.

peft's function needs a GPU, and ignores the adapter's scaling.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nexttoken.errors import UserError
from nexttoken.models.base_model import weight_files
from nexttoken.progress import Progress

OVERSAMPLING = 8  # of the randomised SVD; with these power iterations its error is below that of quantisation
ITERATIONS = 4


def start_from_quantization_error(model: Any, source: Path) -> None:
    """Set each layer's A (r, in) and B (out, r) so that scaling * B A is the best rank-r part of W - dequantised(W).

    `source` holds the whole weights as safetensors. Raises UserError when one of them is missing.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit
    from safetensors import safe_open

    layers = {name: module for name, module in model.get_base_model().named_modules() if isinstance(module, Linear4bit)}
    files = [safe_open(path, "pt") for path in weight_files(source)]
    file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (not a dict)
    with Progress(len(layers), "loftq") as progress, torch.no_grad():
        for layer_name, layer in layers.items():
            name = f"{layer_name}.weight"
            if name not in file_of or f"{name}.absmax" in file_of:
                raise UserError(
                    f"adapter.init=loftq needs the whole weights, and {source} holds no {name} as safetensors in 16 or"
                    " 32 bit; use another adapter.init"
                )
            stored = layer.get_base_layer().weight
            quantised = dequantize_4bit(stored.data, stored.quant_state).float()
            error = file_of[name].get_tensor(name).to(quantised.device).float() - quantised
            for adapter, rank in layer.r.items():
                b, a = low_rank(error / layer.scaling[adapter], rank)
                layer.lora_B[adapter].weight.copy_(b)
                layer.lora_A[adapter].weight.copy_(a)
            progress.advance(1)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in), whose product is nearest to `matrix` (Halko et al. 2011, randomised SVD)."""
    left, values, right = torch.svd_lowrank(matrix, min(rank + OVERSAMPLING, *matrix.shape), ITERATIONS)
    root = values[:rank].sqrt()
    b, a = left[:, :rank] * root, root[:, None] * right[:, :rank].T
    missing = rank - len(root)  # where the matrix is smaller than the rank
    return torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))
