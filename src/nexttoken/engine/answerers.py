"""Answerers, which pair a model with its encoder: of open answers, of saved folds, and the writers of open answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nexttoken.engine.batches import token_batches
from nexttoken.engine.candidate_answerer import CandidateAnswerer
from nexttoken.engine.forward.last_layer import unwrapped
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.vllm import VLLMGenerator
from nexttoken.engine.generation.writer import Writer
from nexttoken.engine.heads import AnswerText, Candidates, Head
from nexttoken.engine.journal import NO_JOURNAL, LabelJournal
from nexttoken.engine.label_answerer import LabelAnswerer, ModelAnswerer
from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens, with_max_tokens
from nexttoken.engine.non_finite import describe_non_finite, run_again_in_float32
from nexttoken.engine.probe import Probe
from nexttoken.engine.probe_answerer import ProbeAnswerer
from nexttoken.engine.run_batches import run_batches
from nexttoken.engine.text_losses import collate_texts, row_losses
from nexttoken.errors import UserError
from nexttoken.models.adapters import trained_adapter
from nexttoken.models.base_model import identify, read_base, refuse_other_base
from nexttoken.models.fold_weights import fold_weights, without_training
from nexttoken.models.hub import locate
from nexttoken.models.load import end_ids, load_tokenizer, within_context
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.saved import keeps_base, load_labels
from nexttoken.prompts.encode_candidates import CandidateEncoder
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS, EncodedText
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, Settings
from nexttoken.types import AnswerLosses, Example


class TextAnswerer(ModelAnswerer):
    """Measures the losses of examples' answers, or writes new answers."""

    def __init__(self, model: nn.Module, encoder: TextEncoder, batch_tokens: int) -> None:
        super().__init__(model, encoder, NO_LABELS, batch_tokens)

    def __call__(self, examples: Sequence[Example]) -> AnswerLosses:
        """Negative log-likelihood of each example's answer, its end token included.

        Of an answer longer than the token budget only the beginning counts, in tokens and in characters.
        """
        rows: list[EncodedText] = self.collect(self.encoder.encode(examples))
        self.leave_float16(rows)
        identity = {"answers": "texts", "precision": self.environment["precision"]}
        with advice_on_memory(self.batch_tokens), self.journals.journal(identity) as journal:
            nll = measure_losses(self.model, rows, self.batch_tokens, journal)
        decode = self.encoder.tokenizer.decode
        scored = [
            decode(row.token_ids[row.learnt]) if row.answer_cut else example.answer or ""
            for example, row in zip(examples, rows, strict=True)
        ]
        num_tokens, num_characters = [row.num_targets for row in rows], list(map(len, scored))
        return AnswerLosses(tuple(row.id for row in rows), nll, np.array(num_tokens), np.array(num_characters))

    @property
    def writer(self) -> Writer:
        tokenizer = self.encoder.tokenizer
        ends = [*self.encoder.ends, *end_ids(unwrapped(self.model), len(tokenizer))]
        return Writer(self.encoder, TransformersGenerator(self.model, tokenizer, self.batch_tokens, ends))


def measure_losses(
    model: nn.Module, rows: Sequence[EncodedText], batch_tokens: int, journal: LabelJournal = NO_JOURNAL
) -> np.ndarray:
    """Each row's loss (N,) float64 in nats, summed over its answer. Raises UserError, naming ids, if not finite."""
    device, packs = next(model.parameters()).device, shortcuts(model).packs

    def run_batch(model: nn.Module, batch: Sequence[EncodedText]) -> np.ndarray:
        return row_losses(model, collate_texts(batch, packs).to(device)).double().cpu().numpy()[:, None]

    lengths = [len(row.token_ids) for row in rows]
    batches = token_batches(lengths, batch_tokens, packs)
    losses, _ = run_batches(model, rows, lengths, batches, run_batch, "score answers", journal)
    run_again_in_float32(model, rows, losses, lambda model, row: run_batch(model, [row])[0])
    if bad := [row.id for row, loss in zip(rows, losses, strict=True) if not np.isfinite(loss).all()]:
        raise UserError(describe_non_finite(bad))
    return losses[:, 0]


AnyEncoder = Encoder | TextEncoder
Answerer = LabelAnswerer | CandidateAnswerer | ProbeAnswerer | TextAnswerer


def make_encoder(head: Head, tokenizer: Any, prompt: Prompt, max_tokens: int) -> AnyEncoder:
    if isinstance(head, Candidates):
        return CandidateEncoder(tokenizer, prompt, max_tokens, head.after, head.answers)
    kind = TextEncoder if isinstance(head, AnswerText) else Encoder
    return kind(tokenizer, prompt, max_tokens)


def make_answerer(head: Any, model: nn.Module, encoder: AnyEncoder, labels: LabelTokens, batch_tokens: int) -> Answerer:
    if isinstance(encoder, TextEncoder):
        return TextAnswerer(model, encoder, batch_tokens)
    if isinstance(encoder, CandidateEncoder):
        return CandidateAnswerer(model, head, encoder, labels, batch_tokens)
    return LabelAnswerer(model, head, encoder, labels, batch_tokens)


class FoldModels:
    """Answerers of folds with the same settings, one at a time in memory; a shared base or tokenizer is loaded once."""

    def __init__(self, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> None:
        settings = without_training(settings) if isinstance(head, Probe) else settings
        self.settings, self.prompt, self.head, self.batch_tokens = settings, prompt, head, batch_tokens
        self._weights = fold_weights(settings)
        self._encoders: dict[tuple[int, int], AnyEncoder] = {}  # by the tokenizer's id and max_tokens
        self._in_memory: Path | None = None
        self._answerer: Answerer | None = None

    def answerer(self, fold_dir: Path) -> Answerer:
        """The answerer of a finished fold. The answerer returned before loses its model.

        Folds that do not differ, because nothing was trained, have the same answerer.
        Raises UserError when files are missing or broken, for other labels, and for an adapter of another base model.
        """
        names = self.head.label_names(self.prompt)
        labels = load_labels(fold_dir / "labels.json") if names else NO_LABELS
        if labels.labels != names:
            raise UserError(f"{fold_dir} was trained on labels {list(labels.labels)}, not {list(names)}")
        settings = with_max_tokens(self.settings, fold_dir)
        if self.batch_tokens == AUTO:  # chosen before the weights take their memory
            spec = self._weights.spec(fold_dir).change(max_tokens=settings.max_tokens, batch_tokens=AUTO)
            self.batch_tokens = with_batch_tokens(spec).settings.batch_tokens
        folder = self._weights.folder_of(fold_dir)
        if folder != self._in_memory and self._answerer is not None:
            del self._answerer.model  # no caller may use its memory, or another fold's weights, from now on
            self._answerer = self._in_memory = None
        model, tokenizer = self._weights.load(fold_dir, self.head.num_outputs(labels))
        self._in_memory = folder
        max_tokens = within_context(model.config, settings.max_tokens)
        if isinstance(self.head, Probe):
            spans = self.head.encoder(tokenizer, self.prompt, max_tokens)
            made_by = read_base(fold_dir / "adapter").weights
            return ProbeAnswerer(model, self.head, spans, self.batch_tokens, made_by).load_probe(fold_dir)
        key = (id(tokenizer), max_tokens)
        if key not in self._encoders:
            self._encoders[key] = make_encoder(self.head, tokenizer, self.prompt, max_tokens)
        encoder, known = self._encoders[key], self._answerer
        if known is None or known.encoder is not encoder or known.labels != labels:
            self._answerer = known = make_answerer(self.head, model, encoder, labels, self.batch_tokens)
        known.reset_counts()
        return known


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
    ends = [*encoder.ends, *end_ids(spec, len(tokenizer))]
    limits = {"max_model_len": encoder.max_tokens, **options}
    return Writer(encoder, VLLMGenerator(locate(str(model.name_or_path)), adapter, ends, **limits))
