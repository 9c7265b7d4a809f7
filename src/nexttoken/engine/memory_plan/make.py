"""The memory plan of a run: each part's size, before any weight is loaded."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.last_layer import decoder_layers
from nexttoken.engine.forward.parallel_batches import max_parallel_batches
from nexttoken.engine.memory_plan.advice import advise
from nexttoken.engine.memory_plan.dry_run import Skeleton, Step, step_bytes
from nexttoken.engine.memory_plan.table import MemoryPlan, Part, in_units
from nexttoken.models.device_sheets import GROUPS_CAPABILITY
from nexttoken.models.load import ModelSpec, text_sizes
from nexttoken.models.memory import free_memory
from nexttoken.models.packed_formats import is_packed, stored_bits
from nexttoken.settings import QuantizationSettings

# As in bitsandbytes:
BLOCK = 64  # 4-bit weights that share a scale
SCALE_BLOCK = 256  # scales (double quantization) or optimizer states that share a scale
CODEBOOK_BYTES = 4 * 16  # the values of the sixteen 4-bit codes
SCALE_CODEBOOK_BYTES = 4 * 256 + 4  # the values of an 8-bit scale's codes, and the scales' mean
# Share of the activations that the C library's allocator holds in gaps, measured with 4 and 30 layers in 16 and 32 bit.
GAPS = 0.3
MIN_8BIT_SIZE = 4096  # smaller tensors have 32-bit states in the 8-bit optimizers


def make_plan(spec: ModelSpec) -> MemoryPlan:
    """Plan a run from the architecture alone, with advice if it does not fit. Raises UserError for invalid settings."""
    with no_side_effects():
        plan = plan_parts(spec)
        if plan.fits or not plan.is_complete:
            return plan
        packed = is_packed(spec.config)
        return advise(plan, spec.settings, lambda changed: plan_parts(spec.change(**dict(changed))), packed)


def plan_parts(spec: ModelSpec) -> MemoryPlan:
    """The plan without advice. Sizes counted before for the same model come from `spec.memo`."""
    settings = spec.settings
    fit = (settings.fit.optimizer, settings.fit.ema, is_training(spec))
    key = str((spec.dtype, settings.quantization, settings.adapter, settings.model.stream_layers, *fit))
    if key not in spec.memo:
        spec.memo[key] = plan_weights(spec)
    weights: MemoryPlan = spec.memo[key]
    parts = (*weights.parts, plan_activations(spec))
    return replace(
        weights,
        free=free_memory(spec.device) if spec.sheet is None else spec.sheet.free,
        shape=batch_shape(spec),
        parts=parts,
    )


def plan_weights(spec: ModelSpec) -> MemoryPlan:
    """The parts that do not depend on the batch: weights, adapter, gradients and optimizer states."""
    settings, adapter = spec.settings, spec.settings.adapter
    skeleton = Skeleton(settings, spec.config, spec.dtype)
    base = skeleton.build(adapted=False)
    num_parameters = sum(parameter.numel() for parameter in base.parameters())
    note = str(spec.dtype).removeprefix("torch.")
    if settings.quantization:
        note = f"linear layers in {settings.quantization.bits} bit, the rest in {note}"
    size = weight_bytes(base, settings.quantization)
    if packed := stored_bits(spec.config):
        note = f"linear layers packed in {packed:.3g} bit, the rest in {note}"
        layers = [layer.weight for layer in quantized_layers(base)]
        size -= stored_bytes(layers) - ceil(sum(weight.numel() for weight in layers) * packed / 8)
    if settings.model.stream_layers:
        size, note = streamed_bytes(base, size), f"{note}; two layers at a time"
    parts = [Part("weights", size, note)]
    trained = [p for p in base.parameters() if p.requires_grad]
    if adapter:
        trained = [p for p in skeleton.build().parameters() if p.requires_grad]
        parts.append(Part("adapter", stored_bytes(trained), f"LoRA of rank {adapter.r}"))
        num_parameters += sum(parameter.numel() for parameter in trained)
    trained = trained if is_training(spec) else []
    if is_training(spec):
        kind, size = settings.fit.optimizer, optimizer_bytes(settings.fit.optimizer, trained)
        optimizer = Part("optimizer", size, kind)
        if kind.startswith("paged") and spec.device.type == "cuda":
            note = f"{kind}: {in_units(size)}, moved to the CPU's memory when the GPU is full"
            optimizer = Part("optimizer", 0, note)
        parts += [Part("gradients", stored_bytes(trained)), optimizer]
        parts += [Part("moving average", stored_bytes(trained), "fit.ema")] if settings.fit.ema else []
    num_trained = sum(parameter.numel() for parameter in trained)
    return MemoryPlan(
        spec.sheet.name if spec.sheet else str(spec.device), None, num_parameters, num_trained, (0, 0), tuple(parts)
    )


def is_training(spec: ModelSpec) -> bool:
    return spec.settings.trainer.max_epochs > 0


def batch_shape(spec: ModelSpec) -> tuple[int, int]:
    """Rows and tokens of a batch full of the longest prompts, the first batch of a run."""
    tokens = min(spec.settings.max_tokens, spec.context or spec.settings.max_tokens)
    return max(spec.settings.batch_tokens // tokens, 1), tokens


def plan_activations(spec: ModelSpec) -> Part:
    """Memory of a batch's forward (and in training backward) pass, and of one layer of dequantized weights."""
    settings, training = spec.settings, is_training(spec)
    at_once, recomputes = batches_at_once(spec), settings.fit.gradient_checkpointing
    named = settings.quantization.compute_dtype if settings.quantization else "auto"
    skeleton = Skeleton(settings, spec.config, spec.dtype if named == "auto" else getattr(torch, named))
    mixed = spec.precision.endswith("mixed")
    step = Step(*batch_shape(spec), training, mixed, on_gpu=spec.device.type == "cuda")
    key = str((step, skeleton.dtype, settings.adapter, recomputes))
    try:
        if key not in spec.memo:
            spec.memo[key] = step_bytes(skeleton, step)
    except Exception as error:  # a model's own code may fail with any error on tensors without content
        return Part("activations", None, f"unknown: {' '.join(str(error).split())[:100]}")
    size = spec.memo[key]
    if settings.quantization or is_packed(spec.config):  # one layer at a time is dequantized for its product
        layers = quantized_layers(skeleton.build(num_layers=1, adapted=False))
        size += max((layer.weight.numel() for layer in layers), default=0) * skeleton.dtype.itemsize
    size += repeated_keys_bytes(spec)
    if spec.device.type == "cpu":
        size = int(size * (1 + GAPS))
    notes = ["with gradient checkpointing"] if training and recomputes else []
    notes += [f"{at_once} batches at once"] if at_once > 1 else []
    return Part("activations", at_once * size, ", ".join(notes))


def repeated_keys_bytes(spec: ModelSpec) -> int:
    """Keys and values repeated for the heads that share them, where no fused kernel takes shared ones (blocks.py)."""
    if spec.device.type != "cuda" or capability(spec) >= GROUPS_CAPABILITY:
        return 0
    config, sizes, (rows, tokens) = spec.config.get_text_config(), text_sizes(spec.config), batch_shape(spec)
    heads = config.num_attention_heads
    missing = heads - (sizes.get("num_key_value_heads") or heads)
    size = sizes.get("head_dim") or config.hidden_size // heads
    is_kept = is_training(spec) and not spec.settings.fit.gradient_checkpointing
    layers = config.num_hidden_layers if is_kept else 1
    return 2 * layers * missing * size * rows * tokens * (4 if spec.precision == "32-true" else 2)


def capability(spec: ModelSpec) -> tuple[int, int]:
    """The compute capability of the GPU that is planned for; a new one's where there is none."""
    if spec.sheet is not None:
        return spec.sheet.capability
    return torch.cuda.get_device_capability(spec.device) if torch.cuda.is_available() else GROUPS_CAPABILITY


def batches_at_once(spec: ModelSpec) -> int:
    """Batches that go through the model in parallel; in training only with an adapter whose noise allows it."""
    settings = spec.settings
    learns = settings.adapter is not None and spec.precision == "32-true" and not settings.fit.shares_random_stream
    return max_parallel_batches(spec.device) if learns or not is_training(spec) else 1


@contextmanager
def no_side_effects() -> Iterator[None]:
    """Build models without changing the run's random numbers and without warnings."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weight_bytes(model: Any, quantization: QuantizationSettings | None) -> int:
    """Bytes of a model's weights; with `quantization`, its linear layers as bitsandbytes stores them."""
    total = stored_bytes(model.parameters())
    if quantization is None:
        return total
    weights = [layer.weight for layer in quantized_layers(model)]
    return total - stored_bytes(weights) + sum(_quantized(weight, quantization) for weight in weights)


def streamed_bytes(model: Any, total: int) -> int:
    """Bytes of the weights in memory at a time, of `total` in all, where layers are streamed: two layers of all."""
    layers = decoder_layers(model)
    inside = {id(parameter) for parameter in layers.parameters()}
    outside = stored_bytes(parameter for parameter in model.parameters() if id(parameter) not in inside)
    return outside + 2 * (total - outside) // max(len(layers), 2)


def quantized_layers(model: Any) -> Iterator[nn.Linear]:
    """All linear layers but the output: transformers leaves a head, and a classification layer, as they are."""
    head = model.get_output_embeddings() or getattr(model, "score", None)
    return (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)


def _quantized(weight: Tensor, quantization: QuantizationSettings) -> int:
    """Dettmers et al.: LLM.int8 (2022) has one float32 scale a row; QLoRA (2023) one a block, in 8 bit if `double`."""
    if quantization.bits == 8:
        return weight.numel() + 4 * weight.shape[0]
    num_scales = ceil(weight.numel() / BLOCK)
    scales = 4 * num_scales
    if quantization.double:
        scales = num_scales + 4 * ceil(num_scales / SCALE_BLOCK) + SCALE_CODEBOOK_BYTES
    return ceil(weight.numel() / 2) + CODEBOOK_BYTES + scales


def optimizer_bytes(kind: str, parameters: Iterable[Tensor]) -> int:
    """AdamW's two states of each trained number: float32, or 8 bit with a float32 scale a block (Dettmers 2021)."""
    smallest = MIN_8BIT_SIZE if kind.endswith("8bit") else float("inf")
    sizes = [parameter.numel() for parameter in parameters]
    return sum(2 * (size + 4 * ceil(size / SCALE_BLOCK)) if size >= smallest else 8 * size for size in sizes)
