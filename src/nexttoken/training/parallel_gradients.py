"""Gradients of several micro-batches computed in parallel on the CPU, added up in a fixed order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.parallel_batches import (
    MAX_PARALLEL_BATCHES,
    ParallelStreams,
    copies_sharing_weights,
    copy_sharing_weights,
    num_streams,
)
from nexttoken.engine.forward.shortcuts import share_shortcuts
from nexttoken.models.fast_lora import FastDropout
from nexttoken.models.processes import num_ranks
from nexttoken.settings import FitSettings

MAX_TRAINED_SHARE = 0.1  # of the weights: every micro-batch in progress needs gradients for the trained ones
SEED_STRIDE = 500_009  # between the seeds of a step's batches: steps' seeds differ by 1, so that none is used twice

Backpropagate = Callable[[nn.Module, Any], Tensor]  # returns a micro-batch's loss and leaves gradients in the model


class Learners(ParallelStreams):
    """Copies of a model that share its weights in memory, each with its own gradients."""

    def __init__(self, model: nn.Module, number: int) -> None:
        self.trained = trained(model)
        trained_copies = ({id(p): nn.Parameter(p.detach()) for p in self.trained} for _ in range(number))
        self.models = [copy_sharing_weights(model, weights) for weights in trained_copies]
        share_shortcuts(model, self.models)
        self.generators = [torch.Generator() for _ in self.models]
        for learner, generator in zip(self.models, self.generators, strict=True):
            for module in learner.modules():
                if isinstance(module, FastDropout):
                    module.generator = generator

    def add_up(self, backpropagate: Backpropagate, batches: Sequence[Any], seed: int) -> Iterator[Tensor]:
        """Each batch's loss; its gradients are added to the model's. Dropout is seeded by the batch's number."""

        def take_gradients(model: nn.Module, numbered: tuple[int, Any]) -> tuple[Tensor, list[Tensor | None]]:
            number, batch = numbered
            self.generators[self.models.index(model)].manual_seed(seed + number * SEED_STRIDE)
            parameters = trained(model)
            try:
                loss = backpropagate(model, batch)
                return loss, [parameter.grad for parameter in parameters]
            finally:  # also after an error, since the step may be repeated
                for parameter in parameters:
                    parameter.grad = None

        for loss, gradients in self.map(take_gradients, list(enumerate(batches)), from_both_ends=True):
            for parameter, gradient in zip(self.trained, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            yield loss


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def num_learners(model: Any, settings: FitSettings, precision: str | None) -> int:
    """The number of micro-batches to compute in parallel: one where batches draw from the same random stream.

    Dropout other than the adapters' does so, and some settings do.
    """
    if num_ranks() > 1 or precision != "32-true" or settings.shares_random_stream:
        return 1
    num_trained, everything = (sum(p.numel() for p in some) for some in (trained(model), model.parameters()))
    config = model.config.get_text_config().to_dict()
    noise = [value for name, value in config.items() if "drop" in name or "noise" in name]
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and not isinstance(m, FastDropout)]
    if num_trained > MAX_TRAINED_SHARE * everything or any(noise) or any(dropouts):
        return 1
    number = num_streams(model, MAX_PARALLEL_BATCHES)
    return number if number == 1 or copies_sharing_weights(model, 1) else 1
