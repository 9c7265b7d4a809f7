"""Answerers, which pair a model with its encoder: of a head, of saved folds, and the writers of open answers."""

from pathlib import Path
from typing import Any

from torch import nn

from nexttoken.engine.generation.vllm import VLLMGenerator
from nexttoken.engine.generation.writer import Writer
from nexttoken.engine.heads import AnswerText, Head
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens, with_max_tokens
from nexttoken.engine.text_answerer import TextAnswerer
from nexttoken.errors import UserError
from nexttoken.models.adapters import trained_adapter
from nexttoken.models.base_model import identify, refuse_other_base
from nexttoken.models.fold_weights import fold_weights
from nexttoken.models.load import load_tokenizer, within_context
from nexttoken.models.saved import keeps_base, load_labels
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, Settings

AnyEncoder = Encoder | TextEncoder
Answerer = LabelAnswerer | TextAnswerer


def make_encoder(head: Head, tokenizer: Any, prompt: Prompt, max_tokens: int) -> AnyEncoder:
    kind = TextEncoder if isinstance(head, AnswerText) else Encoder
    return kind(tokenizer, prompt, max_tokens)


def make_answerer(head: Any, model: nn.Module, encoder: AnyEncoder, labels: LabelTokens, batch_tokens: int) -> Answerer:
    if isinstance(encoder, TextEncoder):
        return TextAnswerer(model, encoder, batch_tokens)
    return LabelAnswerer(model, head, encoder, labels, batch_tokens)


class FoldModels:
    """Answerers of folds that were trained with the same settings; one at a time is in memory.

    A base model or tokenizer that folds share is loaded once.
    """

    def __init__(self, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> None:
        self.settings, self.prompt, self.head, self.batch_tokens = settings, prompt, head, batch_tokens
        self._weights = fold_weights(settings)
        self._encoders: list[AnyEncoder] = []
        self._in_memory: Path | None = None
        self._answerer: Answerer | None = None

    def answerer(self, fold_dir: Path) -> Answerer:
        """The answerer of a finished fold. The answerer returned before loses its model.

        Folds that do not differ, because nothing was trained, have the same answerer.
        Raises UserError when files are missing or broken, and for an adapter of another base model.
        """
        labels, settings = self._labels(fold_dir), with_max_tokens(self.settings, fold_dir)
        if self.batch_tokens == AUTO:  # chosen before the weights take their memory
            spec = self._weights.spec(fold_dir).change(max_tokens=settings.max_tokens, batch_tokens=AUTO)
            self.batch_tokens = with_batch_tokens(spec).settings.batch_tokens
        folder = self._weights.folder_of(fold_dir)
        if folder != self._in_memory and self._answerer is not None:
            del self._answerer.model  # no caller may use its memory, or another fold's weights, from now on
            self._answerer = self._in_memory = None
        model, tokenizer = self._weights.load(fold_dir, self.head.num_outputs(labels))
        self._in_memory = folder
        encoder = self._encoder(tokenizer, within_context(model.config, settings.max_tokens))
        known = self._answerer
        if known is None or known.encoder is not encoder or known.labels != labels:
            self._answerer = known = make_answerer(self.head, model, encoder, labels, self.batch_tokens)
        known.reset_counts()
        return known

    def _labels(self, fold_dir: Path) -> LabelTokens:
        labels = load_labels(fold_dir / "labels.json") if self.prompt.labels else NO_LABELS
        if labels.labels != tuple(self.prompt.labels):
            raise UserError(
                f"{fold_dir} was trained on the labels {list(labels.labels)}, not {list(self.prompt.labels)}"
            )
        return labels

    def _encoder(self, tokenizer: object, max_tokens: int) -> AnyEncoder:
        """One encoder for all folds with the same tokenizer and max_tokens."""
        for encoder in self._encoders:
            if encoder.tokenizer is tokenizer and encoder.max_tokens == max_tokens:
                return encoder
        self._encoders.append(make_encoder(self.head, tokenizer, self.prompt, max_tokens))
        return self._encoders[-1]


def load_answerer(fold_dir: Path, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> Answerer:
    """The answerer of one fold alone. Raises UserError as `FoldModels.answerer` does."""
    return FoldModels(settings, prompt, head, batch_tokens).answerer(fold_dir)


def load_transformers_writer(
    fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int
) -> Writer:
    """The writer of open answers for engine=transformers: the fold's model on this machine."""
    answerer = load_answerer(fold_dir, settings, prompt, head, batch_tokens)
    assert isinstance(answerer, TextAnswerer)
    return answerer.writer


def load_vllm_writer(
    fold_dir: Path, settings: Settings, prompt: Prompt, head: Any, batch_tokens: int, **options: Any
) -> Writer:
    """The writer of open answers for engine=vllm, which makes its own batches; `options` go to `vllm.LLM`."""
    settings, on_base = with_max_tokens(settings, fold_dir), keeps_base(settings)
    spec = fold_weights(settings).spec(fold_dir)
    model = spec.settings.model
    adapter = fold_dir / "adapter" if on_base and trained_adapter(settings) else None
    tokenizer = load_tokenizer(model, ())
    if on_base:
        refuse_other_base(fold_dir / "adapter", settings, identify(settings.model, tokenizer))
    encoder = TextEncoder(tokenizer, prompt, within_context(spec.config, settings.max_tokens))
    limits = {"max_model_len": encoder.max_tokens, **options}
    return Writer(encoder, VLLMGenerator(str(model.name_or_path), adapter, encoder.ends, **limits))
