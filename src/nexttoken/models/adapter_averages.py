"""The mean of several LoRA adapters of one base as one adapter: of their products B A, not of their factors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from nexttoken.data.files import read_json, write_json
from nexttoken.errors import UserError, first_five
from nexttoken.models import base_model as base
from nexttoken.models.adapters import FILES, read_weights

A, B = "lora_A.weight", "lora_B.weight"
SHAPE = ("target_modules", "modules_to_save", "task_type")  # of adapter_config.json


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter on disk: `config` is adapter_config.json, `weights` are its matrices by name."""

    folder: Path
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "SavedAdapter":
        """Raises UserError for a folder without an adapter, and for one of DoRA, whose magnitudes have no mean."""
        if not (folder / FILES[0]).exists():
            raise UserError(f"{folder.parent} has no adapter; only runs with adapter=lora can be averaged")
        config = read_json(folder / FILES[0])
        if config.get("use_dora"):
            raise UserError(f"{folder} was trained with adapter.dora=true, whose magnitudes are no sum; train without")
        return cls(folder, config, read_weights(folder))

    @property
    def scaling(self) -> float:
        rank = self.config["r"]
        return self.config["lora_alpha"] / (rank**0.5 if self.config.get("use_rslora") else rank)


def read_adapters(folders: Sequence[Path]) -> list[SavedAdapter]:
    """The adapters in `folders`. Raises UserError where they differ in their base or in the layers that they adapt."""
    adapters = [SavedAdapter.read(folder) for folder in folders]
    first = adapters[0]
    for other in adapters[1:]:
        bases = [base.read_base(one.folder) for one in (first, other)]
        if (bases[0].weights, bases[0].tokenizer) != (bases[1].weights, bases[1].tokenizer):
            raise UserError(f"{other.folder} stands on {bases[1].name}, another base than {first.folder} on")
        same = other.weights.keys() == first.weights.keys()
        if not same or any(other.config.get(key) != first.config.get(key) for key in SHAPE):
            names = sorted(other.weights.keys() ^ first.weights.keys())
            raise UserError(
                f"{other.folder} adapts other layers than {first.folder} ({first_five(names) or 'settings'})"
            )
    return adapters


def save_average(adapters: Sequence[SavedAdapter], folder: Path, rank: int | None = None) -> int:
    """Write the mean adapter with a scaling of 1; return its rank.

    The rank is the sum of theirs, which is exact, or `rank`: the nearest of that rank (truncated SVD of each product).
    A classification layer, trained as a whole, is averaged as it is.
    """
    total = sum(adapter.config["r"] for adapter in adapters)
    rank = total if rank is None else min(rank, total)
    weights: dict[str, Tensor] = {}
    for name, first in adapters[0].weights.items():
        if name.endswith(A):
            b_name = name.removesuffix(A) + B
            b, a = mean_product(adapters, b_name, name)
            weights[b_name], weights[name] = (b, a) if rank == total else nearest_product(b, a, rank)
        elif not name.endswith(B):
            weights[name] = torch.stack([adapter.weights[name].float() for adapter in adapters]).mean(0).to(first.dtype)
    whole = save({name: weight.contiguous() for name, weight in weights.items()}, {"format": "pt"})
    (folder / FILES[1]).write_bytes(whole)  # a full disk is an OSError here, and not one of `save_file`
    changed = {"r": rank, "lora_alpha": rank, "use_rslora": False}
    write_json({**adapters[0].config, **changed}, folder / FILES[0])
    base.read_base(adapters[0].folder).save(folder)
    return rank


def mean_product(adapters: Sequence[SavedAdapter], b_name: str, a_name: str) -> tuple[Tensor, Tensor]:
    """B (out, R) and A (R, in), float32, whose product is the mean of the scaled ones; R is the sum of the ranks."""
    shares = [adapter.scaling / len(adapters) for adapter in adapters]
    b = torch.cat([adapter.weights[b_name].float() * share for adapter, share in zip(adapters, shares, strict=True)], 1)
    return b, torch.cat([adapter.weights[a_name].float() for adapter in adapters])


def nearest_product(b: Tensor, a: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors of `rank` whose product is nearest to b (out, R) times a (R, in), in equal shares of its size.

    The SVD is that of an R x R matrix: both factors are first written as orthogonal columns times a small square one.
    """
    (b_columns, b_square), (a_columns, a_square) = torch.linalg.qr(b), torch.linalg.qr(a.T)
    left, values, right = torch.linalg.svd(b_square @ a_square.T, full_matrices=False)
    root = values[:rank].sqrt()
    new_b, new_a = b_columns @ left[:, :rank] * root, root[:, None] * (right[:rank] @ a_columns.T)
    missing = rank - len(root)  # where the layer itself is narrower
    return torch.nn.functional.pad(new_b, (0, missing)), torch.nn.functional.pad(new_a, (0, 0, 0, missing))
