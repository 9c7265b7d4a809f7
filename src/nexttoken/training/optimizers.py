"""Optimizers and learning rate schedules."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from nexttoken.settings import FitSettings

BETAS = (0.9, 0.98)
BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw_32bit": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def make_optimizer(settings: FitSettings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW by torch, or by bitsandbytes with 8-bit or paged states; norms and biases do not decay."""
    matrices, vectors = ([p for p in parameters if (p.ndim >= 2) == is_matrix] for is_matrix in (True, False))
    decays = ((matrices, settings.weight_decay), (vectors, 0.0))
    groups = [{"params": some, "weight_decay": decay} for some, decay in decays if some]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS)
    import bitsandbytes.optim

    return getattr(bitsandbytes.optim, BITSANDBYTES[settings.optimizer])(groups, lr=settings.learning_rate, betas=BETAS)


def learning_rate_factor(settings: FitSettings, num_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then linear or cosine decay to zero (or none), as a factor of the learning rate."""
    warmup = max(1, round(settings.warmup_fraction * num_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[settings.decay]

    return factor
