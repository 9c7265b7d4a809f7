"""A model spread over several devices: weights, gradients and optimizer states are sharded (FSDP2, fully_shard).

Every process holds a part of each layer and gathers the whole layer only to compute with it (Zhao et al. 2023).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nexttoken.models.processes import choose_device, join, num_ranks


def shard(model: nn.Module) -> None:
    """Split the weights among the processes, layer by layer, and move this process's part to its device."""
    join()
    mesh = init_device_mesh(choose_device().type, (num_ranks(),))
    plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    for module in list(plain.modules()):
        if type(module).__name__ in (plain._no_split_modules or ()):  # the decoder layers
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # else stale whole copies would stay


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def gather_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; all processes must call this. Any other tensor is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """A sharded model's whole weights by name, on the CPU; None for any other model."""
    if not is_sharded(model):
        return None
    return {name: gather_tensor(parameter.detach()).cpu() for name, parameter in model.named_parameters()}


def overwrite_parameter(parameter: Tensor, value: Tensor) -> None:
    """Replace the values of `parameter`, or of this process's part of it, by the whole `value`."""
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    with torch.no_grad():
        parameter.copy_(value)
