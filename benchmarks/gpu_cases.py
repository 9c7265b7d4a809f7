"""The cases of benchmarks.gpu, run with this project's loading, adapters, fit and prediction."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.ours_training import ADAPTER, ClockedModule, synchronize
from benchmarks.shapes import row_lengths
from nexttoken.engine.batches import token_batches
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.forward.varlen import goes_at_once
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.errors import one_line
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import load_model
from nexttoken.models.memory import forget_peak, peak_memory_mb
from nexttoken.models.processes import choose_device
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import FitSettings, ModelSettings, QuantizationSettings, TrainerSettings
from nexttoken.training.callbacks import Curve
from nexttoken.training.fit import fit
from nexttoken.training.steps import Batcher, Course, TrainSteps

LABELS = LabelTokens(("A", "B", "tie"), ((5,), (6,), (7,)), (("A",), ("B",), ("tie",)), num_rejoined=0)
HEAD = LabelSoftmax()
LENGTHS = ("equal", "heavy-tailed")
WARMUP = 2  # steps that are not counted: memory is allocated, kernels are chosen


@dataclass(frozen=True)
class Workload:
    """The amount of work: rows of an optimizer step, tokens of the longest, and the number of counted steps."""

    tokens: int
    rows: int
    steps: int
    batch_tokens: int
    vocab_size: int

    def prompts(self, lengths: str, num_rows: int) -> list[EncodedPrompt]:
        rng = np.random.default_rng(0)
        sizes = row_lengths(lengths, num_rows, self.tokens)
        drawn = (rng.integers(8, self.vocab_size, size, np.int32) for size in sizes)
        return [EncodedPrompt(str(index), index % 3, "", ids, False) for index, ids in enumerate(drawn)]


@dataclass(frozen=True)
class Case:
    """One measurement: `work` is predict (the base alone), predict with adapter, or train."""

    work: str
    method: str
    lengths: str
    gradient_checkpointing: bool = False

    @property
    def training(self) -> bool:
        return self.work == "train"


@dataclass(frozen=True)
class Speed:
    """Seconds and real tokens of each counted step, the share of padding beside them, and the peak of memory."""

    seconds: list[float]
    tokens: list[int]
    padded_share: float
    peak_memory_gib: float
    batches_halved: bool = False  # memory was too short for batch_tokens


@dataclass(frozen=True)
class Failure:
    """The error of a case that has no speed."""

    error: str


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int, num_times: int = 7) -> float:
    """The device's product of two random (size, size) matrices, in operations per second: median of several."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    products = 10 if device.type == "cuda" else 1
    seconds = []
    for _ in range(num_times + 1):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(products):
            left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return products * 2 * size**3 / median(seconds[1:])


def rows_at_once(config: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Return true if all rows of a batch attend in one call of the device's kernel, false for one call per row."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    query, key, value = (torch.empty(1, n, 1, size, device=device, dtype=dtype) for n in (heads, groups, groups))
    further = (getattr(config, name, None) for name in ("attn_logit_softcapping", "sliding_window"))
    return goes_at_once(query, key, value, 0.0, *further)


def load(settings: ModelSettings, method: str, dtype: torch.dtype, workload: Workload) -> nn.Module:
    """The base of `method` on its device: quantised while it is loaded, or in `dtype`."""
    quantization = QuantizationSettings(bits=4) if method == "qlora" else None
    vocabulary = range(workload.vocab_size)  # stands for the tokenizer, of which the loader reads the length
    return load_model(settings, vocabulary, workload.tokens, dtype, quantization).to(choose_device())


def measure(
    settings: ModelSettings, method: str, dtype: torch.dtype, workload: Workload, checkpointing: Sequence[bool]
) -> Iterator[tuple[Case, Speed | Failure]]:
    """Yield every case of a method on one loaded model; a failed case yields its Failure, and the next one follows.

    Prediction comes first: Lightning leaves a trained model on the CPU.
    """
    loaded = [Case("predict", method, lengths) for lengths in LENGTHS]
    adapted = [Case("predict with adapter", method, lengths) for lengths in LENGTHS]
    adapted += [Case("train", method, lengths, again) for again in checkpointing for lengths in LENGTHS]
    print(f"loading it for {method}", flush=True)
    model = attempt(partial(load, settings, method, dtype, workload))
    if isinstance(model, Failure):
        yield from ((case, model) for case in loaded + adapted)
        return
    for case in loaded:
        yield case, attempt(partial(predict, model, case, workload))
    model = add_adapter(model, ADAPTER)
    for case in adapted:
        yield case, attempt(partial(train if case.training else predict, model, case, workload))


def attempt(action: Callable[[], Any]) -> Any:
    """Run `action`; return its result, or a Failure. Memory that earlier cases left is freed first."""
    forget_peak()
    if torch.cuda.is_available():  # again, now that the garbage is collected
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return action()
    except Exception as error:  # out of memory, a missing library, an unsupported attention: results, all of them
        return Failure(f"{type(error).__name__}: {one_line(error)[:300]}")


def predict(model: nn.Module, case: Case, workload: Workload) -> Speed:
    """Predict the rows of one step several times, each time from token ids to probabilities on the CPU."""
    prompts = workload.prompts(case.lengths, workload.rows)
    lengths = [len(prompt.token_ids) for prompt in prompts]
    ends = [time.perf_counter()]
    for _ in range(1 + workload.steps):
        predict_labels(model, HEAD, prompts, LABELS, workload.batch_tokens)
        ends.append(time.perf_counter())
    seconds, padded = np.diff(ends)[1:].tolist(), sum(lengths)
    if not shortcuts(model).packs:
        batches = token_batches(lengths, workload.batch_tokens)
        padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return Speed(seconds, [sum(lengths)] * workload.steps, 1 - sum(lengths) / padded, peak_memory_mb() / 2**10)


def train(model: Any, case: Case, workload: Workload) -> Speed:
    """One epoch of the product's fit: token-budget micro-batches, clipping, AdamW, curve, checkpoint at the end."""
    if case.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.zero_grad(set_to_none=True)  # of a case that failed
    num_steps = WARMUP + workload.steps
    prompts = workload.prompts(case.lengths, workload.rows * num_steps)
    batcher = Batcher(HEAD, LABELS, workload.batch_tokens, packs=shortcuts(model).packs)
    steps = TrainSteps(prompts, workload.rows, 0, batcher)
    again = case.gradient_checkpointing
    settings = FitSettings(batch_size=workload.rows, learning_rate=2e-5, gradient_checkpointing=again)
    module = ClockedModule(model, HEAD, LABELS, settings, Course(num_steps, 0))
    with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
        options = TrainerSettings(max_epochs=1).model_dump() | {"logger": []}
        fit(module, steps, [], Path(folder), Curve(Path(folder, "curve.csv")), options)
    seconds, real, padded = np.diff(module.ends)[WARMUP - 1 :].tolist(), module.real[WARMUP:], module.padded[WARMUP:]
    return Speed(seconds, real, 1 - sum(real) / sum(padded), peak_memory_mb() / 2**10, module.halves_batches)
