"""The computing context of a model: one dtype for its products in training, on dev rows and in prediction.

Weights that are trained, adapters included, are float32 beside 16-bit ones; autocast brings both to one dtype.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import BF16_CAPABILITY, DeviceSheet
from nexttoken.models.processes import from_first
from nexttoken.settings import ModelSettings

PRECISIONS = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}  # Lightning's names
MIN_GAIN = 1.5  # by which products in bfloat16 have to be faster on a CPU, to be worth their rounding
TRIAL_TOKENS, MAX_TRIAL_WIDTH, NUM_TRIALS = 256, 1024, 6  # a few milliseconds; the first trial is not counted
# Reported to exceed 65,504, the largest float16: google/gemma_pytorch#10, microsoft/onnxruntime-genai#2444 (Gemma 2 and
# gpt-oss), huggingface/transformers#39972 (Gemma 3) and #28163 (Phi-2), unslothai/unsloth-zoo#600 (Gemma 4).
OVERFLOWING = ("gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "phi", "gpt_oss")
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def compute_in(model: Any, dtype: torch.dtype | None) -> None:
    """Set the dtype of products in `computing(model)` (None: that of the weights), also of adapters added later.

    Where products stay in float32, a GPU computes them in TF32.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain.autocast_dtype = dtype
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def autocast_dtype(model: Any) -> torch.dtype | None:
    """The dtype of a model's products; None for the dtype of its weights."""
    return getattr(model, "autocast_dtype", None)


def computing(model: nn.Module) -> AbstractContextManager[Any]:
    """Context of a forward pass. The backward pass does not belong in it: autocast would round gradients.

    Casts are not kept: each weight is used once in a pass, and a copy of all weights would stay in memory.
    """
    dtype = autocast_dtype(model)
    if dtype is None:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype, cache_enabled=False)


def fast_dtype(architecture: str, sheet: DeviceSheet | None = None, retries: bool = False) -> torch.dtype:
    """The fastest safe dtype of `sheet` or this machine: bfloat16, on older GPUs (a T4) float16, on the CPU float32.

    Architectures that are known to overflow float16 get float32 on older GPUs, unless it `retries`: then single rows
    that overflow are run again in float32 (engine/non_finite.py), and a trial decides (engine/float16_trial.py).
    """
    if sheet is None and not torch.cuda.is_available():
        return torch.float32
    has_bf16 = sheet.capability >= BF16_CAPABILITY if sheet else torch.cuda.is_bf16_supported(including_emulation=False)
    if has_bf16:
        return torch.bfloat16
    return torch.float32 if not retries and architecture.removesuffix("_text") in OVERFLOWING else torch.float16


def choose_dtype(
    settings: ModelSettings, architecture: str, training: bool, sheet: DeviceSheet | None = None, retries: bool = False
) -> torch.dtype:
    """The weights' dtype: float32 for trained weights, else the fastest of this machine.

    `architecture` is transformers' `model_type`. `training` is False for the frozen weights under an adapter. `retries`
    as in `fast_dtype`.
    Raises UserError for 16-bit weights that are trained: AdamW's small updates would be rounded away.
    """
    training = training or settings.name_or_path is None
    if settings.dtype == "auto":
        return torch.float32 if training else fast_dtype(architecture, sheet, retries)
    if settings.dtype != "float32" and training:
        raise UserError(
            f"model.dtype={settings.dtype}: weights that are trained need float32, most small updates would be lost;"
            " use model.dtype=auto (a GPU still computes in 16 bit), or adapter=lora"
        )
    return getattr(torch, settings.dtype)


@cache
def fast_cpu_dtype(width: int) -> torch.dtype:
    """bfloat16 where this CPU multiplies matrices of a model's width clearly faster in it, else float32.

    The products are measured, once in a run: that a CPU has units for bfloat16 does not say how fast they are. Of
    several processes the first one measures for all.
    """
    width = min(width, MAX_TRIAL_WIDTH)
    formats = (torch.float32, torch.bfloat16)
    seconds, seconds_16 = from_first(lambda: [_seconds_of_product(width, dtype) for dtype in formats])
    return torch.bfloat16 if seconds >= MIN_GAIN * seconds_16 else torch.float32


def _seconds_of_product(width: int, dtype: torch.dtype) -> float:
    """The shortest processor time of a linear layer of this width.

    On one thread: on a busy machine, several would wait for each other for longer than the product takes.
    """
    tokens, weights = torch.ones(TRIAL_TOKENS, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
    num_threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(NUM_TRIALS):
            start = time.thread_time()
            nn.functional.linear(tokens, weights)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(num_threads)
    return min(times[1:])


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within this context a GPU multiplies float32 without TF32, which keeps 10 bits of a factor."""
    before = torch.get_float32_matmul_precision()
    if device.type != "cuda" or before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
