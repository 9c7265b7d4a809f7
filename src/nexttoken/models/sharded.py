"""A model that does not fit on one device: weights, gradients and optimizer states shared out (FSDP2, fully_shard).

Every process holds a part of each layer and has the whole one only while it computes with it (Zhao et al. 2023).
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nexttoken.models.collective import join
from nexttoken.models.load import choose_device
from nexttoken.models.processes import num_ranks


def shard(model: nn.Module) -> None:
    """Part the weights among the processes, layer by layer, and put this process's part on its device."""
    join()
    mesh = init_device_mesh(choose_device().type, (num_ranks(),))
    plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    for module in list(plain.modules()):
        if type(module).__name__ in (plain._no_split_modules or ()):  # transformers' word for its decoder layers
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # or its parameters would be unsharded, stale copies


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """The tensor that shards make up, in every process; all of them have to ask. Any other tensor is itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """A sharded model's weights by name, on the CPU, as they are to be saved; None for any other model."""
    if not is_sharded(model):
        return None
    return {name: whole(parameter.detach()).cpu() for name, parameter in model.named_parameters()}


def put(parameter: Tensor, value: Tensor) -> None:
    """Overwrite `parameter`, or this process's part of it, with the whole `value`."""
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    with torch.no_grad():
        parameter.copy_(value)


class ShardedStrategy(DDPStrategy):
    """Lightning's processes as in DDP; the sharded modules exchange what they need themselves, nothing is wrapped."""

    def configure_ddp(self) -> None:
        """There are no gradients left to average."""

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, on the CPU, in the first process; the others help to gather it."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(self._sharded, plain, options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        options = StateDictOptions(full_state_dict=True)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self._sharded, optimizer, state, options=options)

    @property
    def _sharded(self) -> nn.Module:
        return self.lightning_module.model  # type: ignore[union-attr,return-value]
