"""LoftQ's start (Li et al. 2023): an adapter that gives back what 4-bit quantisation took from the weights.

peft's own function computes on a GPU only, and leaves the adapter's scaling out.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nexttoken.errors import UserError
from nexttoken.models.base_model import weight_files
from nexttoken.progress import Progress

OVERSAMPLING = 8  # of the randomised SVD, with as many power iterations as keep its error below the quantisation's
ITERATIONS = 4


def start_from_quantization_error(model: Any, source: Path) -> None:
    """Set each layer's A (r, in) and B (out, r) so that scaling * B A is the best rank-r part of W - dequantised(W).

    `source` holds the whole weights as safetensors. Raises UserError when one of them is not there.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit

    layers = {name: module for name, module in model.get_base_model().named_modules() if isinstance(module, Linear4bit)}
    weights = WholeWeights(source)
    with Progress(len(layers), "loftq") as progress, torch.no_grad():
        for name, layer in layers.items():
            quantised = layer.get_base_layer().weight
            seen = dequantize_4bit(quantised.data, quantised.quant_state).float()
            lost = weights.read(f"{name}.weight").to(seen.device).float() - seen
            for adapter, rank in layer.r.items():
                b, a = low_rank(lost / layer.scaling[adapter], rank)
                layer.lora_B[adapter].weight.copy_(b)
                layer.lora_A[adapter].weight.copy_(a)
            progress.advance(1)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in), whose product is nearest to `matrix` (Halko et al. 2011, randomised SVD)."""
    left, values, right = torch.svd_lowrank(matrix, min(rank + OVERSAMPLING, *matrix.shape), ITERATIONS)
    root = values[:rank].sqrt()
    b, a = left[:, :rank] * root, root[:, None] * right[:, :rank].T
    missing = rank - len(root)  # a rank above the matrix's own
    return torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))


class WholeWeights:
    """The tensors of a checkpoint by name, whichever file holds them; read one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._files = [safe_open(path, "pt") for path in weight_files(folder)]
        self._places = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118  (not a dict)

    def read(self, name: str) -> Tensor:
        if name not in self._places or f"{name}.absmax" in self._places:
            raise UserError(
                f"adapter.init=loftq needs the whole weights, and {self.folder} holds no {name} as safetensors in 16 or"
                " 32 bit; use another adapter.init"
            )
        return self._places[name].get_tensor(name)
