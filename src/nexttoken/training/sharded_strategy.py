"""Lightning's strategy for a model that is sharded over several devices."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict


class ShardedStrategy(DDPStrategy):
    """Lightning's DDP without its wrapper: sharded modules exchange weights and gradients themselves."""

    def configure_ddp(self) -> None:
        """Do nothing: gradients are averaged already."""

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, on the CPU, in the first process; all processes must call this."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(self.lightning_module.model, plain, options=options)  # type: ignore

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        options = StateDictOptions(full_state_dict=True)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self.lightning_module.model, optimizer, state, options=options)  # type: ignore
