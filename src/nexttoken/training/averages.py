"""The moving average of the weights while they are trained, which is scored and saved in their place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 10  # steps; the average of the first ones forgets faster


class WeightAverage:
    """Exponential moving average of a module's trained weights, in a copy of them.

    A step's weights count as 1 - `decay`; in the first steps as 9 / (10 + steps), since the first weights are no result
    of the training (Tan & Le 2019). Of an adapter, the factors A and B are averaged, not their product.
    """

    def __init__(self, decay: float, weights: Mapping[str, Tensor], num_steps: int = 0) -> None:
        self.decay, self.weights, self.num_steps = decay, dict(weights), num_steps

    @classmethod
    def of(cls, module: nn.Module, decay: float) -> "WeightAverage":
        """An average that begins with the module's weights."""
        return cls(decay, {name: p.detach().clone() for name, p in _trained(module)})

    def update(self, module: nn.Module) -> None:
        """Count in the weights after a step."""
        self.num_steps += 1
        share = 1 - min(self.decay, (1 + self.num_steps) / (WARM_UP + self.num_steps))
        for name, parameter in _trained(module):
            self.weights[name] = self.weights[name].to(parameter.device).lerp_(parameter.detach(), share)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights and the average in place; twice is the identity."""
        for name, parameter in _trained(module):
            kept = parameter.detach().clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(kept)  # in place: a tensor made while scoring could not be trained on

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"weights": self.weights, "num_steps": self.num_steps}


def _trained(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]
