"""The memory plan: what a run will need, part by part, before any weight is loaded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nexttoken.engine.forward.parallel_batches import most_at_once
from nexttoken.engine.memory_plan.advice import advise
from nexttoken.engine.memory_plan.dry_run import Skeleton, Step, step_bytes
from nexttoken.engine.memory_plan.sizes import dequantised_bytes, optimizer_bytes, stored, weight_bytes
from nexttoken.engine.memory_plan.table import MemoryPlan, Part, in_units
from nexttoken.models.load import choose_dtype, training_precision
from nexttoken.models.memory import free_memory
from nexttoken.models.quantized import saved_quantization
from nexttoken.settings import Settings


def make_plan(settings: Settings, config: Any, device: torch.device) -> MemoryPlan:
    """Plan a run from the architecture alone; where it does not fit, with the settings that would.

    Raises UserError for settings that no run accepts, such as target modules that the model does not have.
    """
    known: dict[str, int] = {}
    settings = as_stored(settings, config)
    with aside():
        plan = plan_parts(settings, config, device, known)
        if plan.fits or not plan.is_complete:
            return plan
        advice = advise(settings, lambda changed: plan_parts(changed, config, device, known))
        return replace(plan, advice=advice.changes, least=advice.needed)


def as_stored(settings: Settings, config: Any) -> Settings:
    """The settings with the quantisation that the weights come in, where they ask for none."""
    return settings.model_copy(update={"quantization": settings.quantization or saved_quantization(config)})


def plan_parts(settings: Settings, config: Any, device: torch.device, known: dict[str, int]) -> MemoryPlan:
    """The plan without advice; `known` remembers the steps that were run for it."""
    training, adapter = settings.trainer.max_epochs > 0, settings.adapter
    dtype = weights_dtype(settings, config)
    base = Skeleton(settings, config, dtype).build(adapted=False)
    num_parameters = sum(parameter.numel() for parameter in base.parameters())
    parts = [Part("weights", weight_bytes(base, settings.quantization), describe_weights(settings, dtype))]
    trained = [p for p in base.parameters() if p.requires_grad] if training and not adapter else []
    if adapter:
        adapted = Skeleton(settings, config, dtype).build()
        new = [p for p in adapted.parameters() if p.requires_grad]
        parts.append(Part("adapter", stored(new), f"LoRA of rank {adapter.r}"))
        num_parameters += sum(parameter.numel() for parameter in new)
        trained = new if training else []
    if training:
        parts += [Part("gradients", stored(trained)), plan_optimizer(settings, trained, device)]
    parts.append(plan_activations(settings, config, device, known))
    num_trained, shape = sum(parameter.numel() for parameter in trained), batch_shape(settings, config)
    return MemoryPlan(str(device), free_memory(device), num_parameters, num_trained, shape, tuple(parts))


def plan_activations(settings: Settings, config: Any, device: torch.device, known: dict[str, int]) -> Part:
    """The plan's last part, the only one that depends on the tokens."""
    dtype = compute_dtype(settings, weights_dtype(settings, config))
    return plan_step(Skeleton(settings, config, dtype), batch_shape(settings, config), device, known)


def weights_dtype(settings: Settings, config: Any) -> torch.dtype:
    training = settings.trainer.max_epochs > 0 and settings.adapter is None
    return choose_dtype(settings.model, config.get_text_config().model_type, training)


def batch_shape(settings: Settings, config: Any) -> tuple[int, int]:
    """Rows and tokens of a batch full of the longest prompts, which are the first to go through the model."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or settings.max_tokens
    tokens = min(settings.max_tokens, context)
    return max(settings.batch_tokens // tokens, 1), tokens


def compute_dtype(settings: Settings, dtype: torch.dtype) -> torch.dtype:
    named = settings.quantization.compute_dtype if settings.quantization else "auto"
    return dtype if named == "auto" else getattr(torch, named)


def describe_weights(settings: Settings, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if settings.quantization is None:
        return name
    return f"linear layers in {settings.quantization.bits} bit, the rest in {name}"


def plan_optimizer(settings: Settings, trained: list[Tensor], device: torch.device) -> Part:
    size, kind = optimizer_bytes(settings.fit.optimizer, trained), settings.fit.optimizer
    if kind.startswith("paged") and device.type == "cuda":
        return Part("optimizer", 0, f"{kind}: {in_units(size)}, moved to the CPU's memory when the GPU is full")
    return Part("optimizer", size, kind)


def plan_step(skeleton: Skeleton, shape: tuple[int, int], device: torch.device, known: dict[str, int]) -> Part:
    """What a batch takes while it goes through the model (and back), and the unpacked layer of quantised weights."""
    settings = skeleton.settings
    training, on_gpu = settings.trainer.max_epochs > 0, device.type == "cuda"
    precision = training_precision(settings, skeleton.config.get_text_config().model_type)
    at_once, recomputes = batches_at_once(settings, precision, device), settings.fit.gradient_checkpointing
    step = Step(*shape, training, mixed=training and precision.endswith("mixed"), on_gpu=on_gpu)
    key = str((step, skeleton.dtype, settings.adapter, settings.fit.gradient_checkpointing))
    try:
        if key not in known:
            known[key] = step_bytes(skeleton, step)
    except Exception as error:  # a model's own code can do anything to tensors without content
        return Part("activations", None, f"unknown: {' '.join(str(error).split())[:100]}")
    size = known[key]
    if settings.quantization:
        size += dequantised_bytes(skeleton.build(num_layers=1, adapted=False), skeleton.dtype.itemsize)
    notes = [
        "with gradient checkpointing" if training and recomputes else "",
        f"{at_once} batches at once" if at_once > 1 else "",
    ]
    return Part("activations", at_once * size, ", ".join(filter(None, notes)))


def batches_at_once(settings: Settings, precision: str, device: torch.device) -> int:
    """How many go through the model side by side; in training, with an adapter whose noise allows it."""
    learns = settings.adapter is not None and precision == "32-true" and not settings.fit.has_one_noise
    return most_at_once(device) if learns or not settings.trainer.max_epochs else 1


@contextmanager
def aside() -> Iterator[None]:
    """Building models here must neither draw from the run's random numbers nor warn of what never runs."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
