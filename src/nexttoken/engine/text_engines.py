"""Writers of open answers: transformers, or vLLM in its own environment; chosen by conf/engine/."""

from pathlib import Path
from typing import Any

from nexttoken.engine.fold_answerers import load_answerer
from nexttoken.engine.generation.vllm import VLLMGenerator
from nexttoken.engine.generation.writer import Writer
from nexttoken.engine.memory_plan.auto_tokens import with_budget
from nexttoken.engine.text_answerer import TextAnswerer
from nexttoken.models.base_model import identify
from nexttoken.models.fold_weights import fold_weights
from nexttoken.models.load import load_tokenizer, within_context
from nexttoken.models.saved import keeps_base, refuse_other_base
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import Settings


def transformers(fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int) -> Writer:
    """The fold's model on this machine."""
    answerer = load_answerer(fold_dir, settings, prompt, head, batch_tokens)
    assert isinstance(answerer, TextAnswerer)
    return answerer.writer


def vllm(fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int, **options: Any) -> Writer:
    """The same weights in vLLM, which makes its own batches; `options` go to `vllm.LLM`."""
    settings, on_base = with_budget(settings, fold_dir), keeps_base(settings)
    spec = fold_weights(settings).spec(fold_dir)
    model = spec.settings.model
    adapter = fold_dir / "adapter" if on_base and settings.adapter and settings.trainer.max_epochs else None
    tokenizer = load_tokenizer(model, ())
    if on_base:
        refuse_other_base(fold_dir / "adapter", settings, identify(settings.model, tokenizer))
    encoder = TextEncoder(tokenizer, prompt, within_context(spec.config, settings.max_tokens))
    limits = {"max_model_len": encoder.max_tokens, **options}
    return Writer(encoder, VLLMGenerator(str(model.name_or_path), adapter, encoder.ends, **limits))
