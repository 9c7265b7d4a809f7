"""Where a tokenizer and a causal LM come from: a hub name, a folder, or nothing but the training text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.settings import ModelSettings, ScratchSettings

BOS = "<|bos|>"
HUB_SECONDS = 5.0  # how long the hub may take to answer at all


def load_tokenizer(settings: ModelSettings, train_texts: Iterable[str]) -> Any:
    """Return the tokenizer of `settings.name_or_path`, or a byte-level BPE learnt from the training texts."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if settings.name_or_path is None:
        return _learn_bpe(settings.scratch, train_texts)
    source = _source(settings.name_or_path)
    tokenizer: PreTrainedTokenizerBase = _from_hub(
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


def choose_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(settings: ModelSettings, device: torch.device, training: bool) -> torch.dtype:
    """The weights' dtype: float32 to be trained and on the CPU, else the 16 bit that the GPU computes in natively.

    Raises UserError for 16 bit weights that are to be trained: AdamW's small updates are lost in them.
    """
    if settings.dtype == "auto":
        if training or device.type == "cpu" or settings.name_or_path is None:
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if settings.dtype != "float32" and (training or settings.name_or_path is None):
        raise UserError(
            f"model.dtype={settings.dtype}: weights that are trained need float32, most small updates would be lost;"
            " use model.dtype=auto (a GPU still computes in 16 bit)"
        )
    return getattr(torch, settings.dtype)


def load_model(
    settings: ModelSettings, tokenizer: Any, max_tokens: int, dtype: torch.dtype | str = "auto"
) -> nn.Module:
    """Return the causal LM, in training mode, on the CPU; dtype "auto" is the one that it was saved in.

    Raises UserError when it is not there, needs code of its own, lacks weights, or does not know all of the tokenizer's
    tokens.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if settings.name_or_path is None:
        return _build(settings.scratch, tokenizer, max_tokens).train()
    logging.disable_progress_bar()
    source = _source(settings.name_or_path)
    model, loading = _from_hub(
        lambda: AutoModelForCausalLM.from_pretrained(
            source,
            revision=settings.revision,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
        ),
        settings,
    )
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"{source}: {len(missing)} weights are missing ({first_five(missing)}) and would be random; give a complete"
            " checkpoint of a causal language model"
        )
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise UserError(
            f"{source}: the tokenizer knows {len(tokenizer)} tokens, the model {rows}; they do not belong together"
        )
    return model.train()  # from_pretrained returns it in evaluation mode, and Lightning would leave it there


def within_context(settings: ModelSettings, max_tokens: int) -> int:
    """The token budget, lowered (and said so) to the positions the model was built for; reads its config only."""
    from transformers import AutoConfig

    if settings.name_or_path is None:
        return max_tokens
    source = _source(settings.name_or_path)
    config = _from_hub(
        lambda: AutoConfig.from_pretrained(
            source, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        ),
        settings,
    )
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is None or max_tokens <= context:
        return max_tokens
    print(f"max_tokens: {max_tokens} -> {context}, the model's context")
    return context


def _source(name_or_path: str) -> str:
    """A folder that exists, else a hub name; something that looks like a path but is none is refused here."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path)
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise UserError(
            f"model.name_or_path={name_or_path!r} is not a folder; give a folder with config.json or a hub name"
        )
    _go_offline_without_network()
    return name_or_path


def _go_offline_without_network() -> None:
    """Ask the hub once: without an answer huggingface_hub would retry for minutes, even for what is in its cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # offline already, no network, no name service, no answer: all the same to us
        constants.HF_HUB_OFFLINE = True


def _from_hub(load: Any, settings: ModelSettings) -> Any:
    """Run a from_pretrained call; every way it can fail becomes one line with the fix."""
    name = settings.name_or_path
    try:
        return load()
    except Exception as error:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason or "custom code" in reason:
            fix = "it ships its own code, which is not executed; if you trust it, set model.trust_remote_code=true"
        elif "gated repo" in reason or "401 Client" in reason or "403 Client" in reason:
            fix = f"accept its licence at https://huggingface.co/{name} and set HF_TOKEN"
        elif "weights_only" in reason or "Weights only" in reason:
            fix = "its weights are a pickle that wants to run code, which is refused; use safetensors weights"
        else:
            fix = "give a folder that holds it, or download it while there is a network"
        raise UserError(f"model {name!r} could not be loaded: {fix} ({reason[:200]})") from None


def _learn_bpe(settings: ScratchSettings, texts: Iterable[str]) -> Any:
    """Byte-level BPE (no unknown tokens, digits one by one) with a beginning-of-sequence token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size, special_tokens=[BOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)


def _build(settings: ScratchSettings, tokenizer: Any, max_tokens: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 8 // 3,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        initializer_range=settings.initializer_range,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    add_dropout(model, settings.dropout)
    return model


def add_dropout(model: nn.Module, probability: float) -> None:
    """Drop activations of the embeddings and of both residual branches while training (Llama's config knows only
    attention dropout); hooks, so that the saved weights stay a plain Llama."""
    if probability == 0:
        return

    def drop(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(output, probability, module.training)

    layers = [layer for block in model.model.layers for layer in (block.self_attn.o_proj, block.mlp.down_proj)]  # type: ignore[union-attr]
    for module in (model.model.embed_tokens, *layers):  # type: ignore[union-attr]
        module.register_forward_hook(drop)
