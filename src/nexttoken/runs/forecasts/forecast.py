"""Forecast of a prediction on a device that is not here: operations over its published rate, and the memory plan."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import DeviceSheet
from nexttoken.runs.forecasts.run_weights import budget_of, disk_bytes, learns, model_of, on_base, tokenizer_of
from nexttoken.runs.forecasts.trial_rows import RowSource, count_tokens

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun

ACHIEVED = (0.25, 0.55)  # shares of the published rate of products that language models usually reach
READ_RATES = (100e6, 500e6)  # bytes a second at which weights are read from a mounted data set and from a disk
ROW_SECONDS = (0.0002, 0.002)  # for each row and model beside its products: reading, tokens, a batch's many small steps
START_SECONDS = 30.0  # of imports and of a GPU's first use


@dataclass(frozen=True)
class Forecast:
    """A prediction's time in seconds, shortest and longest, and its bytes of memory and on disk.

    Memory is that of each GPU, or of the process on a CPU. `processor` are seconds of processor time, where a trial
    measured them: other work on the machine leaves them as they are. `assumed` are lines for people.
    """

    seconds: tuple[float, float]
    memory: int
    disk: int
    processor: float | None = None
    assumed: tuple[str, ...] = ()

    def __add__(self, other: "Forecast") -> "Forecast":
        """One after the other."""
        low, high = (one + two for one, two in zip(self.seconds, other.seconds, strict=True))
        memory, assumed = max(self.memory, other.memory), (*self.assumed, *other.assumed)
        return Forecast((low, high), memory, self.disk + other.disk, assumed=assumed)


def forecast_on_sheet(run: "LoadedRun", source: RowSource, number: int, sheet: DeviceSheet) -> Forecast:
    """By the model's operations over a share of the device's published rate, and by the memory plan."""
    from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens
    from nexttoken.engine.memory_plan.make import make_plan
    from nexttoken.models.fold_weights import without_training
    from nexttoken.models.load import resolve
    from nexttoken.models.published_shapes import config_for_plan

    if not run.parts.task.classes:
        raise UserError(f"{run.path} writes texts, whose lengths are not known; forecast it where it runs: device=this")
    settings = without_training(run.parts.settings.model_copy(update={"max_tokens": budget_of(run)}))
    settings = settings.model_copy(update={"model": model_of(run), "batch_tokens": run.batch_tokens})
    spec = with_batch_tokens(resolve(settings, config_for_plan(settings.model), sheet=sheet))
    plan = make_plan(spec)
    tokens = count_tokens(source.examples, tokenizer_of(run), budget_of(run))
    a_row, how = tokens_as_asked(run, tokens)
    passes = len(run.folds) if learns(run) else 1
    work = number * passes * a_row * operations_per_token(spec.config, float((tokens**2).mean() / tokens.mean()))
    dtype = sheet.fast if spec.settings.quantization else str(spec.dtype).removeprefix("torch.")
    rate = sheet.tflops.get(dtype, sheet.tflops["float32"]) * 1e12 * sheet.gpus
    loaded = (plan.size("weights") or 0) * (passes if not settings.model.name_or_path or not on_base(run) else 1)
    low, high = (
        START_SECONDS + loaded / read + number * passes * beside + work / (rate * share)
        for read, beside, share in zip(reversed(READ_RATES), ROW_SECONDS, reversed(ACHIEVED), strict=True)
    )
    assumed = (
        f"{number:,} rows as long as the {source.split} rows, {a_row:.0f} tokens each {how}, {passes} models in turn",
        f"{sheet.tflops.get(dtype, sheet.tflops['float32']):g} TFLOP/s in {dtype} for each GPU, published by"
        f" {sheet.source}, of which {ACHIEVED[0]:.0%} to {ACHIEVED[1]:.0%} are reached; not measured",
        f"weights read at {READ_RATES[0] / 1e6:.0f} to {READ_RATES[1] / 1e6:.0f} MB/s, {ROW_SECONDS[0] * 1e3:g} to"
        f" {ROW_SECONDS[1] * 1e3:g} ms for each row and model beside its products",
        plan.table().splitlines()[-1],
    )
    return Forecast((low, high), plan.needed, disk_bytes(run, plan.num_parameters), assumed=assumed)


def tokens_as_asked(run: "LoadedRun", tokens: np.ndarray) -> tuple[float, str]:
    """Tokens of a row as the run asks it, with its prompt, orders and passages, and words for how they are known.

    That is the count of the held-out rows, times the ratio of the texts' lengths, `tokens` (N,) being those to predict.
    """
    fold = run.folds[0]
    saved = fold.metrics()
    if not saved.get("num_prompt_tokens") or fold.is_final:
        return float(tokens.mean()), "by their texts alone"
    asked = saved["num_prompt_tokens"] / saved["num_examples"]
    try:
        known = count_tokens(run.held_out(fold), tokenizer_of(run), budget_of(run)).mean()
    except UserError:  # the training file is not here
        return asked, "as the held-out rows were asked"
    return asked * float(tokens.mean()) / max(float(known), 1.0), "as the held-out rows were asked"


def operations_per_token(config: Any, length: float) -> float:
    """Products and sums of one token's forward pass in a prompt of `length` tokens, without embeddings and head.

    Two for each weight of the layers, and in each layer's causal attention two for each number of its heads, for every
    token of the prompt.
    """
    from nexttoken.models.load import estimate_parameters, text_sizes

    text = config.get_text_config()
    layers = estimate_parameters(config) - text.vocab_size * text.hidden_size
    heads = text.num_attention_heads
    width = heads * (text_sizes(config).get("head_dim") or text.hidden_size // heads)
    return 2.0 * layers + 2.0 * text.num_hidden_layers * width * length
