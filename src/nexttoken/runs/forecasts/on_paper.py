"""Time, memory and limits of a training and a prediction on a number of GPUs: from data sheet, plan and operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens
from nexttoken.engine.memory_plan.make import no_side_effects, plan_parts
from nexttoken.engine.memory_plan.table import MemoryPlan, in_units
from nexttoken.errors import UserError
from nexttoken.models.device_sheets import DeviceSheet
from nexttoken.models.fold_weights import without_training
from nexttoken.models.load import ModelSpec, estimate_parameters, resolve
from nexttoken.models.published_shapes import config_for_plan
from nexttoken.runs.forecasts.forecast import ACHIEVED, READ_RATES, ROW_SECONDS, START_SECONDS, operations_per_token
from nexttoken.runs.forecasts.trial_rows import BYTES_PER_TOKEN
from nexttoken.settings import AUTO, Settings

PRODUCTS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}  # dtypes of a precision
SHARDED = ("weights", "adapter", "gradients", "optimizer")  # parts that fsdp divides among the GPUs
GATHERED_LAYERS = 2  # of fsdp: the one that computes, and the next one
EXCHANGE_SHARE = 0.1  # of a step's time that the exchange may add


@dataclass(frozen=True)
class Sized:
    """A work on `gpus` GPUs. `seconds` are None where the memory of a GPU does not suffice.

    `strategy` is that of train.py, "" for one process and for predictions. `memory` is in bytes on each GPU. `link` are
    the GB/s that each GPU has to send, so that the exchange adds at most a tenth to the time; 0.0 without one.
    """

    work: str
    gpus: int
    strategy: str
    seconds: tuple[float, float] | None
    memory: int
    link: float
    limit: str


@dataclass(frozen=True)
class Sizes:
    """The number of rows, and the tokens of each with its prompt."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class OnPaper:
    """A model's training, or with no epochs its prediction, on GPUs with a sheet."""

    spec: ModelSpec
    sizes: Sizes

    @classmethod
    def of(cls, settings: Settings, sheet: DeviceSheet, sizes: Sizes) -> "OnPaper":
        """Raises UserError for rows that are longer than max_tokens, and as `resolve` does."""
        if settings.max_tokens != AUTO and sizes.tokens > settings.max_tokens:
            raise UserError(f"tokens={sizes.tokens} is more than max_tokens={settings.max_tokens}; raise max_tokens")
        if settings.max_tokens == AUTO:
            settings = settings.model_copy(update={"max_tokens": sizes.tokens})
        spec = resolve(settings, config_for_plan(settings.model, settings.max_tokens), sheet=sheet)
        return cls(with_batch_tokens(spec), sizes)

    @property
    def predicting(self) -> "OnPaper":
        """The prediction by the trained model; weights that were all trained are saved in float32."""
        settings = without_training(self.spec.settings)
        if settings.adapter is None and settings.quantization is None:
            model = settings.model.model_copy(update={"dtype": "float32"})
            trainer = settings.trainer.model_copy(update={"precision": self.spec.precision})
            settings = settings.model_copy(update={"model": model, "trainer": trainer})
        return OnPaper(resolve(settings, self.spec.config, sheet=self.spec.sheet), self.sizes)

    @property
    def epochs(self) -> int:
        return self.spec.settings.trainer.max_epochs

    @cached_property
    def plan(self) -> MemoryPlan:
        with no_side_effects():
            return plan_parts(self.spec)

    @property
    def passes(self) -> float:
        """Times that each row is read: epochs, and once more as many where dev rows choose their number (fit.refit)."""
        if not self.epochs:
            return 1.0
        dev = float(self.spec.settings.split.get("dev_fraction") or 0.0)
        return self.epochs * (2 - dev if self.spec.settings.fit.refit and dev else 1.0)

    @property
    def operations(self) -> float:
        """Products and sums of all passes: a backward pass takes two forward ones, and one where weights are frozen."""
        once = self.sizes.rows * self.sizes.tokens * operations_per_token(self.spec.config, float(self.sizes.tokens))
        if not self.epochs:
            return once
        frozen, again = self.spec.settings.adapter is not None, bool(self.spec.settings.fit.gradient_checkpointing)
        return once * self.passes * (2 + (not frozen) + again)

    @property
    def rate(self) -> float:
        """Published operations a second of one GPU in the precision of the products."""
        sheet = self.spec.sheet
        assert sheet is not None
        return sheet.tflops.get(PRODUCTS[self.spec.precision], sheet.tflops["float32"]) * 1e12

    def size(self, gpus: int) -> Sized:
        """The work on so many GPUs: one process each, whole models (ddp) where they fit, else shards (fsdp)."""
        work, free = "training" if self.epochs else "prediction", self.plan.free or 0
        strategy, memory = "ddp" if gpus > 1 and self.epochs else "", self.plan.needed
        if memory > free and gpus > 1 and self.shards:
            strategy, memory = "fsdp", self.sharded_memory(gpus)
        if memory > free:
            missing = f"memory: {in_units(memory - free)} more than a GPU has free"
            return Sized(work, gpus, strategy, None, memory, 0.0, missing)
        busy = min(gpus, self.spec.settings.fit.batch_size) if self.epochs else gpus
        parts = dict(self._seconds(busy))
        low, high = (sum(part[end] for part in parts.values()) for end in (0, 1))
        limit = max(parts, key=lambda name: sum(parts[name]))
        if busy < gpus:
            limit = f"fit.batch_size: {gpus - busy} GPUs without rows"
        return Sized(work, gpus, strategy, (low, high), memory, self._link(strategy, busy), limit)

    def _seconds(self, gpus: int) -> Iterator[tuple[str, tuple[float, float]]]:
        """The shortest and the longest time of each part."""
        weights, rows = self.plan.size("weights") or 0, self.sizes.rows
        computing = self.operations / (self.rate * gpus)
        yield "products", (computing / ACHIEVED[1], computing / ACHIEVED[0])
        yield "rows in one process", (rows * ROW_SECONDS[0], rows * ROW_SECONDS[1])
        yield "start", (START_SECONDS + weights / READ_RATES[1], START_SECONDS + weights / READ_RATES[0])

    @property
    def shards(self) -> bool:
        """True where train.py shards the training (strategy=fsdp): no packed weights, and torch's own optimizer."""
        settings = self.spec.settings
        return bool(self.epochs) and settings.quantization is None and settings.fit.optimizer == "adamw"

    def sharded_memory(self, gpus: int) -> int:
        """Bytes on each GPU: its shard, the activations, and the layers and embeddings that are gathered to compute."""
        shard = sum(part.size or 0 for part in self.plan.parts if part.name in SHARDED) // gpus
        return shard + (self.plan.size("activations") or 0) + self._gathered

    @property
    def _gathered(self) -> int:
        text = self.spec.config.get_text_config()
        number, embedding = estimate_parameters(self.spec.config), text.vocab_size * text.hidden_size
        layers = (number - embedding) // text.num_hidden_layers * GATHERED_LAYERS
        return (layers + embedding) * self.spec.dtype.itemsize

    def _link(self, strategy: str, gpus: int) -> float:
        """GB/s by which an optimizer step's exchange adds EXCHANGE_SHARE to its shortest time.

        ddp adds up the gradients: each GPU sends them twice. fsdp gathers the weights twice for each batch, and adds
        up the gradients.
        """
        if gpus == 1 or not strategy:
            return 0.0
        settings, gradients = self.spec.settings, self.plan.size("gradients") or 0
        steps = self.passes * self.sizes.rows / settings.fit.batch_size
        batches = -(-settings.fit.batch_size * self.sizes.tokens // (gpus * settings.batch_tokens))
        weights = self.plan.size("weights") or 0
        sent = 2 * gradients if strategy == "ddp" else batches * (2 * weights + gradients)
        step_seconds = self.operations / steps / (self.rate * gpus * ACHIEVED[1])
        return sent * (gpus - 1) / gpus / (EXCHANGE_SHARE * step_seconds) / 1e9


def size_up(settings: Settings, sheet: DeviceSheet, sizes: Sizes, gpus: Sequence[int]) -> tuple[list[Sized], list[str]]:
    """The training, if there is one, and the prediction on each number of GPUs, and lines on what was assumed."""
    first = OnPaper.of(settings, sheet, sizes)
    works = [first, first.predicting] if first.epochs else [first]
    return [work.size(number) for work in works for number in gpus], list(_assumed(first, sheet))


def _assumed(work: OnPaper, sheet: DeviceSheet) -> Iterator[str]:
    settings = work.spec.settings
    low, high = ACHIEVED
    yield (
        f"{work.rate / 1e12:g} TFLOP/s in {PRODUCTS[work.spec.precision]} on each GPU, published by {sheet.source}, of"
        f" which {low:.0%} to {high:.0%} are reached"
    )
    if work.epochs:
        yield (
            f"each row is trained on {work.passes:g} times (trainer.max_epochs={work.epochs}, fit.refit), in optimizer"
            f" steps of fit.batch_size={settings.fit.batch_size} rows; a prediction uses one model"
        )
    yield (
        f"rows are read and tokenised by one process, {ROW_SECONDS[0] * 1e3:g} to {ROW_SECONDS[1] * 1e3:g} ms each;"
        f" weights are read at {READ_RATES[0] / 1e6:.0f} to {READ_RATES[1] / 1e6:.0f} MB/s"
    )
    texts = in_units(int(work.sizes.rows * work.sizes.tokens * BYTES_PER_TOKEN))
    yield f"each process holds all texts, {texts} at {BYTES_PER_TOKEN:g} bytes a token; shard_rows=... a part of them"
    yield "the GPUs of one machine share a training (trainer.devices); numbers beyond that are on paper only"
    if settings.quantization:
        yield "packed weights are unpacked for each batch, which is not in the times"
    yield "not in the times: dev rows, checkpoints, the exchange between GPUs; with that link it adds a tenth"
