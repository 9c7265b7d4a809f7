"""Who writes open answers: transformers, or vLLM in an environment of its own; chosen by conf/engine/."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.models.budget import with_budget
from nexttoken.models.encode_text import TextEncoder
from nexttoken.models.folder import keeps_base, load_answerer
from nexttoken.models.generate.rows import GenerationPrompt, Generator
from nexttoken.models.generate.run import generate
from nexttoken.models.generate.vllm import VLLMGenerator
from nexttoken.models.load import load_config, load_tokenizer, within_context
from nexttoken.models.text_answer import TextAnswerer
from nexttoken.prompts import Prompt
from nexttoken.settings import GenerationSettings, Settings
from nexttoken.types import Example, TextPredictions


@dataclass(frozen=True)
class Writer:
    """An encoder and an engine: examples in, texts out."""

    encoder: TextEncoder
    generator: Generator

    def write(
        self,
        examples: Sequence[Example],
        settings: GenerationSettings,
        journal: Path | None = None,
        made_by: str = "",
    ) -> TextPredictions:
        """Write an answer to each example, those that `journal` holds already excepted; `made_by` names the model."""
        encoded = self.encoder.encode_prompts(examples, settings.max_new_tokens)
        if num_cut := sum(row.was_cut for row in encoded.prompts):
            share = encoded.counts()["mean_share_cut"]
            print(f"{num_cut} of {len(encoded.prompts)} prompts were cut, of {share:.0%} of their text on average")
        prompts = [GenerationPrompt(row.id, row.token_ids) for row in encoded.prompts]
        return generate(self.generator, prompts, settings, journal, made_by)


def transformers(fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int) -> Writer:
    """The fold's model on this machine."""
    answerer = load_answerer(fold_dir, settings, prompt, head, batch_tokens)
    assert isinstance(answerer, TextAnswerer)
    return answerer.writer


def vllm(fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int, **options: Any) -> Writer:
    """The same weights in vLLM, which makes its own batches; `options` go to `vllm.LLM`."""
    settings, on_base = with_budget(settings, fold_dir), keeps_base(settings)
    whole = settings.model.model_copy(update={"name_or_path": str(fold_dir / "model"), "revision": None})
    model = settings.model if on_base else whole
    adapter = fold_dir / "adapter" if on_base and settings.adapter and settings.trainer.max_epochs else None
    encoder = TextEncoder(load_tokenizer(model, ()), prompt, within_context(load_config(model), settings.max_tokens))
    limits = {"max_model_len": encoder.max_tokens, **options}
    return Writer(encoder, VLLMGenerator(str(model.name_or_path), adapter, encoder.ends, **limits))
