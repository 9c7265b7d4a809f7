"""Dropout for adapters on the CPU: torch draws a number for each element there, which takes as long as a product.

Sixteen random bits an element are enough: a quarter of a draw. They come from torch's generator, so that a step's noise
is what its seed says, also where activations are computed again.
"""

import torch
from torch import Tensor, nn

STEPS = 2**16  # values of 16 bits; the probability is rounded to these, and the scale goes by the rounded one


class QuickDropout(nn.Dropout):
    """nn.Dropout with its own masks on the CPU (Srivastava et al. 2014)."""

    def forward(self, values: Tensor) -> Tensor:
        """Zero each of `values` with probability p and scale the others, in training; the same shape."""
        number = round(self.p * STEPS)
        if not self.training or values.device.type != "cpu" or not 0 < number < STEPS:
            return super().forward(values)
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[:size].view(values.shape)  # from -STEPS / 2 on, all equally likely
        return torch.where(drawn < number - STEPS // 2, 0.0, values * (STEPS / (STEPS - number)))


def draw_quickly(adapted: nn.Module) -> None:
    """Put these in place of the dropout in front of each adapter matrix."""
    for module in adapted.modules():
        places = getattr(module, "lora_dropout", None)
        if isinstance(places, nn.ModuleDict):
            plain = {name: place for name, place in places.items() if type(place) is nn.Dropout}
            places.update({name: QuickDropout(place.p) for name, place in plain.items()})
