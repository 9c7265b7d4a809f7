"""Where a tokenizer and a model come from: a hub name, a folder, or nothing but the training text."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.allocator import keep_freed_memory
from nexttoken.models.hub import from_hub, locate
from nexttoken.models.processes import num_ranks, rank
from nexttoken.models.quantized import keep_trainable, loading_options
from nexttoken.models.scratch import build_llama, learn_bpe, llama_config
from nexttoken.settings import ModelSettings, QuantizationSettings, Settings

NEW_CLASSES = {"score.weight", "score.bias"}  # what a language model lacks when it is to classify


def load_tokenizer(settings: ModelSettings, train_texts: Iterable[str]) -> Any:
    """Return the tokenizer of `settings.name_or_path`, or a byte-level BPE learnt from the training texts."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if settings.name_or_path is None:
        return learn_bpe(settings.scratch, train_texts)
    source = locate(settings.name_or_path)
    tokenizer: PreTrainedTokenizerBase = from_hub(
        lambda: AutoTokenizer.from_pretrained(
            source, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        ),
        settings,
    )
    if not tokenizer.is_fast:
        raise UserError(
            f"{source} has no fast tokenizer (tokenizer.json); convert it once with transformers' AutoTokenizer"
        )
    return tokenizer


def load_config(settings: ModelSettings) -> Any:
    """The transformers configuration of `settings.name_or_path`: the architecture, without its weights."""
    from transformers import AutoConfig

    assert settings.name_or_path is not None
    source = locate(settings.name_or_path)
    return from_hub(
        lambda: AutoConfig.from_pretrained(
            source, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        ),
        settings,
    )


def load_architecture(settings: Settings) -> Any:
    """The transformers configuration of the model that the settings name, or that will be built from nothing."""
    if settings.model.name_or_path is not None:
        return load_config(settings.model)
    scratch = settings.model.scratch
    return llama_config(scratch, scratch.vocab_size, settings.max_tokens)  # fewer tokens where the texts are few


def choose_device() -> torch.device:
    """This process's GPU where there is one, else the CPU. Raises UserError for more processes than GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if num_ranks() > torch.cuda.device_count():
        raise UserError(
            f"devices={num_ranks()}, but this machine has {torch.cuda.device_count()} GPU; ask for as many devices, or"
            " set CUDA_VISIBLE_DEVICES= to use the CPU"
        )
    return torch.device("cuda", rank())


def fast_dtype(architecture: str) -> torch.dtype:
    """What this machine computes such models in: bfloat16, on older GPUs (a T4) float16, on the CPU float32.

    Gemma's activations leave float16's range, so without bfloat16 it is computed in float32.
    """
    if not torch.cuda.is_available():
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if architecture.startswith("gemma") else torch.float16


def choose_dtype(settings: ModelSettings, architecture: str, training: bool) -> torch.dtype:
    """The weights' dtype: float32 to be trained, else what the machine is fast in.

    `architecture` is transformers' `model_type`; `training` says that these very weights are trained, while those
    under an adapter are not.
    Raises UserError for 16 bit weights that are to be trained: AdamW's small updates are lost in them.
    """
    if settings.dtype == "auto":
        return torch.float32 if training or settings.name_or_path is None else fast_dtype(architecture)
    if settings.dtype != "float32" and (training or settings.name_or_path is None):
        raise UserError(
            f"model.dtype={settings.dtype}: weights that are trained need float32, most small updates would be lost;"
            " use model.dtype=auto (a GPU still computes in 16 bit), or adapter=lora"
        )
    return getattr(torch, settings.dtype)


def training_precision(settings: Settings, architecture: str) -> str:
    """Lightning's name for the dtype that is computed in: the frozen weights' own, or what the machine is fast in."""
    if settings.trainer.precision:
        return settings.trainer.precision
    frozen = settings.adapter is not None
    dtype = choose_dtype(settings.model, architecture, training=False) if frozen else fast_dtype(architecture)
    return {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}[dtype]


def load_model(
    settings: ModelSettings,
    tokenizer: Any,
    max_tokens: int,
    dtype: torch.dtype | str = "auto",
    quantization: QuantizationSettings | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Return the causal LM (with `num_classes`, the model under a classification layer), in training mode.

    It comes on the CPU, quantised weights on their device; dtype "auto" is the one that it was saved in.
    Raises UserError when it is not there, needs code of its own, lacks weights, or does not know all of the tokenizer's
    tokens.
    """
    import transformers
    from transformers.utils import logging

    keep_freed_memory()
    if settings.name_or_path is None:
        return build_llama(settings.scratch, tokenizer, max_tokens, num_classes).train()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is missing is said below, and in one line
    source = locate(settings.name_or_path)
    kind: Any = (
        transformers.AutoModelForCausalLM if num_classes is None else transformers.AutoModelForSequenceClassification
    )
    config = load_config(settings)
    if num_classes is None and any("SequenceClassification" in name for name in config.architectures or ()):
        raise UserError(f"{source} is a classifier without an output head for words; use head=classification")
    options = loading_options(config, quantization, dtype, choose_device())
    if num_classes is not None and "config" in options:
        options["config"].num_labels = num_classes
    elif num_classes is not None:
        options["num_labels"] = num_classes
    model, loading = from_hub(
        lambda: kind.from_pretrained(
            source,
            revision=settings.revision,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            **options,
        ),
        settings,
    )
    new = NEW_CLASSES if num_classes is not None else set()
    if missing := sorted({*loading["missing_keys"]} - new):
        raise UserError(
            f"{source}: {len(missing)} weights are missing ({first_five(missing)}) and would be random; give a complete"
            " checkpoint of a causal language model"
        )
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise UserError(
            f"{source}: the tokenizer knows {len(tokenizer)} tokens, the model {rows}; they do not belong together"
        )
    keep_trainable(model)
    return model.train()  # from_pretrained returns it in evaluation mode, and Lightning would leave it there


def within_context(config: Any, max_tokens: int) -> int:
    """The token budget, lowered (and said so) to the positions that the model of this config was built for."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is None or max_tokens <= context:
        return max_tokens
    print(f"max_tokens: {max_tokens} -> {context}, the model's context")
    return context
