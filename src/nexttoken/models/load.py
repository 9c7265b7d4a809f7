"""The tokenizer and the model: loaded by hub name or from a folder, or built from scratch."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.allocator import keep_freed_memory
from nexttoken.models.base_model import weight_files
from nexttoken.models.device_sheets import DeviceSheet
from nexttoken.models.hub import from_hub, locate
from nexttoken.models.precision import PRECISIONS, choose_dtype, fast_cpu_dtype, fast_dtype
from nexttoken.models.pretrained import from_pretrained, load_pretrained_tokenizer
from nexttoken.models.processes import choose_device
from nexttoken.models.quantized import keep_trainable, loading_options, saved_quantization
from nexttoken.models.scratch import build_llama, learn_bpe, llama_config
from nexttoken.models.streamed import load_streamed, weights_on_disk
from nexttoken.settings import ModelSettings, QuantizationSettings, Settings

CLASSIFIER_WEIGHTS = {"score.weight", "score.bias"}  # missing in a language model: they start at random
RETRYING_HEADS = (".LabelSoftmax", ".WholeVocabulary", ".Classification", ".Candidates")
MIN_16_BIT = 50_000_000  # weights of a model from which 16 bit is tried on a CPU; smaller ones are fast as they are
MIN_CHECKPOINTED = 1_000_000_000  # weights of a model from which fit.gradient_checkpointing=auto saves memory


@dataclass(frozen=True)
class ModelSpec:
    """A run's model before its weights are loaded: the base of loading, planning memory and training.

    `settings.quantization` is that of the saved weights where the configuration has none.
    """

    settings: Settings
    config: Any  # transformers' configuration of the architecture
    device: torch.device
    dtype: torch.dtype  # of the weights that are not quantised
    precision: str  # Lightning's name for the dtype of the computation, in training and in prediction
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # sizes counted by the memory plan
    sheet: DeviceSheet | None = None  # of the GPU that is planned for instead of this machine's

    def __str__(self) -> str:
        """The device and the precision, such as `cuda:0, bf16-mixed, weights in float32`; zero-shot has no training."""
        trained = [self.precision] if self.settings.trainer.max_epochs else []
        return ", ".join([str(self.device), *trained, f"weights in {str(self.dtype).removeprefix('torch.')}"])

    @property
    def context(self) -> int | None:
        """The longest input in tokens that the model was built for; None where its configuration does not say."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def change(self, **values: Any) -> "ModelSpec":
        """The same model with some settings changed."""
        return resolve(self.settings.model_copy(update=values), self.config, self.device, self.memo, self.sheet)


def resolve(
    settings: Settings,
    config: Any = None,
    device: torch.device | None = None,
    memo: dict[str, Any] | None = None,
    sheet: DeviceSheet | None = None,
) -> ModelSpec:
    """Load the configuration (unless `config` is given) and choose the model's device, dtype and precision.

    With `sheet` they are chosen as on that GPU.
    Raises UserError as `choose_device`, `choose_dtype` and `load_config` do.
    """
    config = load_config(settings.model, settings.max_tokens) if config is None else config
    fit = settings.fit
    if fit.gradient_checkpointing == "auto":
        fit = fit.model_copy(update={"gradient_checkpointing": estimate_parameters(config) >= MIN_CHECKPOINTED})
    quantization = settings.quantization or saved_quantization(config)
    settings = settings.model_copy(update={"quantization": quantization, "fit": fit})
    architecture = config.get_text_config().model_type
    is_trained = settings.trainer.max_epochs > 0 and settings.adapter is None
    dtype = choose_dtype(settings.model, architecture, is_trained, sheet, retries=retries_rows(settings))
    device = device or (choose_device() if sheet is None else torch.device("cuda"))
    is_frozen = settings.model.name_or_path is not None and not is_trained
    if device.type == "cpu" and is_frozen and settings.model.dtype == "auto" and quantization is None:
        is_large = estimate_parameters(config) >= MIN_16_BIT
        dtype = fast_cpu_dtype(config.get_text_config().hidden_size) if is_large else dtype
    precision = settings.trainer.precision or PRECISIONS[fast_dtype(architecture, sheet) if is_trained else dtype]
    return ModelSpec(settings, config, device, dtype, precision, {} if memo is None else memo, sheet)


def retries_rows(settings: Settings) -> bool:
    """True for a prediction of class probabilities, whose rows are run again in float32 where they are not finite."""
    return settings.trainer.max_epochs == 0 and str(settings.head.get("_target_")).endswith(RETRYING_HEADS)


def estimate_parameters(config: Any) -> int:
    """The weights of the decoder layers and of one embedding; a mixture's experts are counted once."""
    text, sizes = config.get_text_config(), text_sizes(config)
    width, heads = text.hidden_size, text.num_attention_heads
    key_heads = sizes.get("num_key_value_heads") or heads
    inner = sizes.get("intermediate_size") or 4 * width
    layer = 2 * width * (sizes.get("head_dim") or width // heads) * (heads + key_heads) + 3 * width * inner
    return text.num_hidden_layers * layer + text.vocab_size * width


def text_sizes(config: Any) -> dict[str, Any]:
    """The sizes of the language part by name; where layers differ, as in Gemma 4, those of most of them."""
    return config.get_text_config().to_dict()  # its attributes raise an error where layers differ


def refuse_other_size(config: Any, folder: Path) -> None:
    """Raise UserError where config.json has far more weights than the folder's files: they would fill the memory."""
    size = sum(path.stat().st_size for path in weight_files(folder)) if folder.is_dir() else 0
    if size and (number := estimate_parameters(config)) > max(8 * size, MIN_16_BIT):  # less than a bit each
        what = f"{folder / 'config.json'} describes {number:,} weights, and the files beside it hold {size:,} bytes"
        raise UserError(f"{what}; give a folder whose files belong together")


def load_tokenizer(settings: ModelSettings, train_texts: Iterable[str]) -> Any:
    """The tokenizer of `settings.name_or_path`, or a byte-level BPE learned from the training texts."""
    if settings.name_or_path is None:
        return learn_bpe(settings.scratch, train_texts)
    return load_pretrained_tokenizer(settings)


def load_config(settings: ModelSettings, max_tokens: int = 0) -> Any:
    """The transformers configuration of the model that the settings name, or that will be built from scratch."""
    from transformers import AutoConfig

    if settings.name_or_path is None:
        return llama_config(settings.scratch, settings.scratch.vocab_size, max_tokens)  # its vocabulary may be smaller
    return from_pretrained(AutoConfig, settings)


def load_model(
    settings: ModelSettings,
    tokenizer: Any,
    max_tokens: int,
    dtype: torch.dtype | str = "auto",
    quantization: QuantizationSettings | None = None,
    num_classes: int | None = None,
    config: Any = None,
    device: torch.device | None = None,
) -> nn.Module:
    """Load the causal LM in training mode, or with `num_classes` the model with a classification layer.

    Pretrained weights go straight to `device`, this process's where none is given, without a copy in host memory; those
    of a new model are on the CPU. dtype "auto" is the saved one. `max_tokens` is the context of a model from scratch.
    `config` is the configuration of a base model, which is loaded already; a run's own model is given without it. Of a
    base with a classification layer the body is loaded, where the words' head is tied to the embeddings.
    Raises UserError when the model is missing, needs custom code, lacks weights, or has fewer embeddings than the
    tokenizer has tokens.
    """
    keep_freed_memory()
    if settings.name_or_path is None:
        if settings.stream_layers:
            raise UserError(
                "model.stream_layers=true reads layers from files, and model=scratch has none; leave it out"
            )
        return build_llama(settings.scratch, tokenizer, max_tokens, num_classes).train()
    model = _load_saved(settings, dtype, quantization, num_classes, config, device or choose_device())
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        source = settings.name_or_path
        raise UserError(f"{source}: the tokenizer knows {len(tokenizer)} tokens, the model {rows}; they do not fit")
    return model.train()  # from_pretrained returns it in evaluation mode, which Lightning would not change


def _load_saved(
    settings: ModelSettings,
    dtype: torch.dtype | str,
    quantization: QuantizationSettings | None,
    num_classes: int | None,
    config: Any,
    device: torch.device,
) -> Any:
    """The model of saved weights, as `load_model` says, without a look at its tokenizer."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # missing weights are reported below, in one line
    is_classifier, source = num_classes is not None, str(settings.name_or_path)
    kind = transformers.AutoModelForSequenceClassification if is_classifier else transformers.AutoModelForCausalLM
    is_base = config is not None  # a fold's own layer is never left out
    config = copy.deepcopy(config) if is_base else load_config(settings)
    if not is_classifier and has_classifier(config) and not config.get_text_config().tie_word_embeddings:
        raise UserError(f"{source} is a classifier without an output head for words; use head=classification")
    refuse_other_size(config, Path(source).expanduser())
    attention = {"attn_implementation": settings.attn_implementation}
    if is_classifier:
        config.num_labels = num_classes
    if settings.stream_layers:
        return from_hub(
            lambda: load_streamed(kind, weights_on_disk(settings), config, dtype, device, **attention), settings
        )
    options = loading_options(config, quantization, dtype, device)
    if is_classifier:
        options["ignore_mismatched_sizes"] = is_base  # its layer may be for another number of labels
    options |= {"config": config, "dtype": dtype, **attention}
    model, loading = from_pretrained(kind, settings, output_loading_info=True, **options)
    if missing := sorted({*loading["missing_keys"]} - (CLASSIFIER_WEIGHTS if is_classifier else set())):
        raise UserError(
            f"{source}: {len(missing)} weights are missing ({first_five(missing)}) and would be random; give a complete"
            " checkpoint of a causal language model"
        )
    keep_trainable(model)
    return model


def has_classifier(config: Any) -> bool:
    """True for a checkpoint with a classification layer, such as a reward model."""
    return any("SequenceClassification" in str(name) for name in config.architectures or ())


def leave_out_classifier(model: Any, source: str, num_classes: int | None) -> None:
    """Say that a checkpoint's classification layer is left out, and make the model's own layer a new one, if any."""
    print(f"{source} is a classifier or reward model: its body is used, and its layer is left out")
    if num_classes is not None:
        nn.init.normal_(model.score.weight, std=model.config.get_text_config().initializer_range)


def within_context(config: Any, max_tokens: int) -> int:
    """Return `max_tokens`, or the model's context (with a printed line) where that is shorter."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or max_tokens
    if max_tokens > context:
        print(f"max_tokens: {max_tokens} -> {context}, the model's context")
    return min(max_tokens, context)


def end_ids(model: Any, num_tokens: int) -> list[int]:
    """Ids at which a model ends its answers by its config.json and generation_config.json; each may name several.

    `model` is the loaded model, or a ModelSpec whose generation_config.json is read. Ids from `num_tokens` on, the size
    of the tokenizer's vocabulary, are left out.
    """
    generation = _generation_config(model.settings.model) if isinstance(model, ModelSpec) else model.generation_config
    named = (getattr(config, "eos_token_id", None) for config in (model.config.get_text_config(), generation))
    ids = [id for ends in named for id in (ends if isinstance(ends, list | tuple) else [ends])]
    return list(dict.fromkeys(id for id in ids if isinstance(id, int) and 0 <= id < num_tokens))


def _generation_config(settings: ModelSettings) -> Any:
    """The model's generation_config.json, None where there is none, or none that can be read."""
    from transformers import GenerationConfig

    try:
        revision = settings.revision or "main"
        return GenerationConfig.from_pretrained(locate(str(settings.name_or_path)), revision=revision)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # as transformers does
        return None
