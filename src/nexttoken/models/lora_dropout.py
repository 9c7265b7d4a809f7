"""Dropout for adapters on the CPU: torch draws a number for each element there, which takes as long as a product.

Sixteen random bits an element are enough: a quarter of a draw. They come from torch's generator, so that a step's noise
is what its seed says, also where activations are computed again.
"""

import torch
from torch import Tensor, nn

STEPS = 2**16  # values of 16 bits; the probability is rounded to these, and the scale goes by the rounded one


class QuickDropout(nn.Dropout):
    """nn.Dropout with its own masks on the CPU (Srivastava et al. 2014).

    They are drawn from `generator` where one is set, and from torch's own otherwise.
    """

    generator: torch.Generator | None = None

    def draw(self, values: Tensor) -> tuple[Tensor | None, float]:
        """What to drop of `values` on the CPU, True in their shape or None for nothing, and the scale of the rest."""
        number = round(self.p * STEPS)
        if not self.training or number == 0:
            return None, 1.0
        if number == STEPS:
            return torch.ones_like(values, dtype=torch.bool), 1.0
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64, device=values.device)
        bits.random_(-(2**63), None, generator=self.generator)
        drawn = bits.view(torch.int16)[:size].view(values.shape)  # from -STEPS / 2 on, all equally likely
        return drawn < number - STEPS // 2, STEPS / (STEPS - number)

    def forward(self, values: Tensor) -> Tensor:
        """Zero each of `values` with probability p and scale the others, in training; the same shape."""
        if values.device.type != "cpu":
            return super().forward(values)
        dropped, scale = self.draw(values)
        return values if dropped is None else torch.where(dropped, 0.0, values * scale)


def draw_quickly(adapted: nn.Module) -> None:
    """Put these in place of the dropout in front of each adapter matrix."""
    for module in adapted.modules():
        places = getattr(module, "lora_dropout", None)
        if isinstance(places, nn.ModuleDict):
            plain = {name: place for name, place in places.items() if type(place) is nn.Dropout}
            places.update({name: QuickDropout(place.p) for name, place in plain.items()})
