"""Gradients of several micro-batches at once on the CPU, added up in their order: the same sum in every run."""

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
from nexttoken.models.fast_lora import QuickDropout
from nexttoken.models.processes import num_ranks
from nexttoken.settings import FitSettings

FEW = 0.1  # of all weights: each micro-batch under way has gradients of its own for those that are trained
STRIDE = 500_009  # between the seeds of a step's batches: the next step's seed is one more, and its noise is another

Learn = Callable[[nn.Module, Any], Tensor]  # a model and a micro-batch: its loss, with gradients left in the model


class Learners(ParallelStreams):
    """Copies of a model's modules, each with gradients of its own; trained weights are the same memory."""

    def __init__(self, model: nn.Module, number: int) -> None:
        self.trained = trained(model)
        own = ({id(p): nn.Parameter(p.detach()) for p in self.trained} for _ in range(number))
        self.models = [copy_sharing_weights(model, weights) for weights in own]
        share_shortcuts(model, self.models)
        self.generators = [torch.Generator() for _ in self.models]
        for learner, generator in zip(self.models, self.generators, strict=True):
            for module in learner.modules():
                if isinstance(module, QuickDropout):
                    module.generator = generator

    def add_up(self, learn: Learn, batches: Sequence[Any], seed: int) -> Iterator[Tensor]:
        """Each batch's loss; its gradients are added to those of the model. A batch's noise is its number's."""

        def learn_alone(model: nn.Module, numbered: tuple[int, Any]) -> tuple[Tensor, list[Tensor | None]]:
            number, batch = numbered
            self.generators[self.models.index(model)].manual_seed(seed + number * STRIDE)
            own = trained(model)
            try:
                loss = learn(model, batch)
                return loss, [parameter.grad for parameter in own]
            finally:  # also of a batch that failed halfway: its step may start again
                for parameter in own:
                    parameter.grad = None

        for loss, gradients in self.map(learn_alone, list(enumerate(batches)), from_both_ends=True):
            for parameter, gradient in zip(self.trained, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            yield loss


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def num_learners(model: Any, settings: FitSettings, precision: str | None) -> int:
    """How many micro-batches may be learnt from at once: one where the noise of a step has a single source.

    That is, beside what the settings say, any dropout but the adapters' own.
    """
    if num_ranks() > 1 or precision != "32-true" or settings.shares_random_stream:
        return 1
    num_trained, everything = (sum(p.numel() for p in some) for some in (trained(model), model.parameters()))
    config = model.config.get_text_config().to_dict()
    noise = [value for name, value in config.items() if "drop" in name or "noise" in name]
    others = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and not isinstance(m, QuickDropout)]
    if num_trained > FEW * everything or any(noise) or any(others):
        return 1
    number = num_streams(model, MAX_PARALLEL_BATCHES)
    return number if number == 1 or copies_sharing_weights(model, 1) else 1
