"""The keys of a configuration with their types and defaults."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nexttoken.errors import file_name
from nexttoken.progress import seconds_of

Seconds = Annotated[float | None, BeforeValidator(seconds_of)]  # written as 8h30m, 45m or 90s
Name = Annotated[str, BeforeValidator(file_name)]

# Keys that change no result: two runs that differ only here are the same run.
INCIDENTAL = ("overwrite", "output_dir", "save_prompts", "print_config", "batch_tokens", "logger", "fold", "name")
MAX_SCRATCH_WEIGHTS = 2 * 10**9  # 8 GB, and 32 GB while they are trained
MAX_LAYERS = 1000  # the deepest language models have a few hundred; each is an object of many parts


class Checked(BaseModel):
    """Frozen settings that refuse unknown keys. The validator is built at the first use, not at import."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


class ScratchSettings(Checked):
    """A small Llama-architecture model and a byte-level BPE, both built from the training text."""

    vocab_size: PositiveInt = 1024
    hidden_size: PositiveInt = 64
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    initializer_range: PositiveFloat = 0.08  # with the usual 0.02 so narrow a model stays at chance for some epochs
    dropout: float = Field(default=0.0, ge=0, lt=1)  # on embeddings and both residual branches

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "ScratchSettings":
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size must be a multiple of twice num_heads={self.num_heads} (rotary positions)")
        num_weights = self.hidden_size * (self.vocab_size + 12 * self.hidden_size * self.num_layers)
        if num_weights > MAX_SCRATCH_WEIGHTS or self.num_layers > MAX_LAYERS:
            limits = f"at most {MAX_SCRATCH_WEIGHTS:,} weights in {MAX_LAYERS:,} layers are built"
            raise ValueError(f"{num_weights:,} weights in {self.num_layers:,} layers; {limits}")
        return self


Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"]  # none of a hub


class ModelSettings(Checked):
    """A pretrained model (hub name, folder, GGUF file, fetched weights), or (None) a new one built from `scratch`."""

    name_or_path: str | None = None
    revision: str | None = None
    from_run: str | None = None  # a run to begin from: its adapter on the same model, or its weights instead of one
    scratch: ScratchSettings = ScratchSettings()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Attention | None = None  # None: chosen by transformers, as Gemma-2 needs
    trust_remote_code: bool = False  # true runs code that comes with a model on your machine
    stream_layers: bool = False  # layers stay in their files, and each is read once for all rows: memory of two layers


class AdapterSettings(Checked):
    """LoRA: small trained matrices beside frozen weights; a run saves the former only."""

    r: PositiveInt
    alpha: PositiveFloat
    dropout: float = Field(ge=0, lt=1)
    target_modules: str | list[str]
    rslora: bool
    dora: bool
    # PiSSA and the like are not offered: they change the base weights, so the adapter would not fit the saved ones.
    init: Literal["default", "gaussian", "orthogonal", "loftq"]


class QuantizationSettings(Checked):
    """Frozen weights in 4 or 8 bits by bitsandbytes."""

    bits: Literal[4, 8]
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


AUTO = 2**30  # stands for max_tokens=auto and batch_tokens=auto until engine/memory_plan has chosen a number
AutoTokens = BeforeValidator(lambda value: AUTO if value == "auto" else value)
ALL = "all"  # in place of a fold's number: a final model on all rows, without an out-of-fold score


def _checked_fold(value: Any) -> int | str:
    if value != ALL and (type(value) is not int or value < 0):
        raise PydanticCustomError("fold", "expected a number of at least 0, or all")
    return value


FoldNumber = Annotated[int | str, BeforeValidator(_checked_fold)]
EmptyIsNone = BeforeValidator(lambda node: node or None)  # adapter=none and quantization=none are empty files


class FitSettings(Checked):
    """Optimization of the weights."""

    batch_size: PositiveInt = 16  # ids per optimizer step; a step has both orders of a pair
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    warmup_fraction: float = Field(default=0.1, ge=0, le=1)  # of all optimizer steps, then decay to zero
    decay: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: PositiveFloat = 1.0
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw"
    gradient_checkpointing: bool | Literal["auto"] = False  # auto: from a billion weights on, by models/load
    neftune_alpha: NonNegativeFloat = 0.0  # uniform noise on the embeddings while training (Jain et al. 2023)
    text_epochs: NonNegativeInt = 0  # epochs of language modelling on the prompts before training on labels
    checkpoint_steps: PositiveInt = 100  # optimizer steps between two resumable checkpoints
    find_learning_rate: bool = False  # a rehearsal on 5 % of the rows chooses among multiples of learning_rate
    ema: float = Field(default=0.0, ge=0, lt=1)  # moving average of the weights, scored and saved instead; 0: none
    dev_every: float = Field(default=1.0, gt=0, le=1)  # of an epoch, between two scores of the dev rows
    patience: PositiveInt | None = None  # scores of the dev rows in a row without a better one, after which to stop
    choose_after_temperature: bool = False  # compare checkpoints by the dev loss after a temperature
    refit: bool = True  # after the choice on the dev rows, train anew on train and dev rows for as many steps

    @property
    def shares_random_stream(self) -> bool:
        """True where a step's micro-batches draw from one random stream: noisy embeddings, recomputed dropout."""
        return bool(self.gradient_checkpointing or self.neftune_alpha)


class TeacherSettings(Checked):
    """A finished run whose out-of-fold answers are soft labels for the training rows."""

    run: str | None = None  # output/<task>/<name>; %fold in it stands for the student's fold
    temperature: PositiveFloat = 1.0  # its probabilities to the power of 1 / temperature: over 1 they are flatter
    weight: float = Field(default=0.5, gt=0, le=1)  # its share of the target; the rest is the row's own label


class PseudoLabelSettings(Checked):
    """Test rows that are learnt with the probabilities of a submission as labels."""

    file: str | None = None  # a submission with a column for each class
    input_dir: str | None = None  # the folder whose test file it answers; None: the run's own


class GenerationSettings(Checked):
    """Generation of an open answer; greedy unless there is a temperature."""

    max_new_tokens: PositiveInt = 256
    repetition_penalty: PositiveFloat = 1.0  # of tokens in the prompt or the answer so far (Keskar et al. 2019)
    temperature: NonNegativeFloat = 0.0  # 0: always the most probable token
    top_p: float = Field(default=1.0, gt=0, le=1)  # nucleus (Holtzman et al. 2020); only with a temperature
    banned: list[str] = []  # texts that are never generated
    stop: list[str] = []  # texts that end an answer, without being part of it
    seed: int = Field(default=0, ge=0, lt=2**32)  # of sampling; each example has its own draws


class TrainerSettings(BaseModel):
    """Options of Lightning's Trainer. `build` refuses any other, with what to use instead."""

    model_config = ConfigDict(frozen=True, extra="allow")

    # Trained weights are float32 and are cast for the computation; None: the fastest safe one on the device.
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None
    max_epochs: NonNegativeInt  # 0: zero-shot
    devices: PositiveInt = 1  # processes, one per GPU (or as many CPU processes)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    deterministic: bool | Literal["warn"] | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced"] | None = None


class Settings(Checked):
    """The whole configuration of train.py; nodes with a `_target_` stay mappings until `build` instantiates them."""

    input_dir: str
    output_dir: str
    name: Name | None
    fold: FoldNumber
    seed: int = Field(ge=0, lt=2**32)
    overwrite: bool
    save_prompts: bool
    print_config: bool = False
    max_tokens: Annotated[PositiveInt, AutoTokens]
    batch_tokens: Annotated[PositiveInt, AutoTokens]
    limit_rows: PositiveInt | None
    without_fold: NonNegativeInt | None = None
    within: Seconds = None  # of the whole command
    test_examples: bool = False
    generate_rows: NonNegativeInt = 0
    task: dict[str, Any]
    prompt: dict[str, Any]
    split: dict[str, Any]
    transforms: dict[str, dict[str, Any]]
    train_transforms: dict[str, dict[str, Any]]
    retriever: dict[str, Any]
    search: dict[str, Any]
    inference: dict[str, Any]
    correction: dict[str, Any] = {}
    candidates: dict[str, Any] = {}
    model: ModelSettings
    adapter: Annotated[AdapterSettings | None, EmptyIsNone]
    quantization: Annotated[QuantizationSettings | None, EmptyIsNone]
    head: dict[str, Any]
    fit: FitSettings
    teacher: TeacherSettings = TeacherSettings()
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    generation: GenerationSettings = GenerationSettings()
    trainer: TrainerSettings
    logger: dict[str, dict[str, Any]]


class PredictSettings(Checked):
    """The configuration of predict.py; all else is read from the run's own configuration."""

    run: str | None
    input_dir: str | None
    output_dir: str
    submissions_dir: str
    name: Name | None
    batch_tokens: Annotated[PositiveInt | None, AutoTokens]
    max_tokens: PositiveInt | None = None
    base: str | None
    retriever: dict[str, Any]
    search: dict[str, Any] = {}
    inference: dict[str, Any]
    correction: dict[str, Any] | None = None  # None: as in training, {}: none
    generation: dict[str, Any]
    engine: dict[str, Any]
    fold: FoldNumber | None
    devices: PositiveInt
    cascade: str | None = None
    cascade_share: float | None = Field(default=None, ge=0, le=1)
    within: Seconds = None  # of the whole command
    shard_rows: PositiveInt | None = None
    replicas: bool = True
    stream_layers: bool = False
    trust_remote_code: bool = False  # whatever the run's own configuration says
