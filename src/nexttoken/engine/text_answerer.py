"""Losses of known open answers, and new open answers, of a model with its encoder."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import nn

from nexttoken.engine.batches import token_batches
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.writer import Writer
from nexttoken.engine.label_answerer import describe_environment
from nexttoken.engine.run_batches import run_batches
from nexttoken.engine.text_losses import collate_texts, row_losses
from nexttoken.models.memory import advice_on_memory
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS, EncodedText
from nexttoken.types import AnswerLosses, Example


class TextAnswerer:
    """A model with its encoder: examples in, losses of their answers or new answers out.

    `counts` and `prompts` collect what the encoder cut and made in all calls since `reset_counts`.
    """

    def __init__(self, model: nn.Module, encoder: TextEncoder, batch_tokens: int) -> None:
        self.model, self.encoder, self.batch_tokens = model, encoder, batch_tokens
        self.labels = NO_LABELS
        self.reset_counts()

    def reset_counts(self) -> None:
        self.counts: Counter[str] = Counter()
        self.prompts: list[EncodedText] = []

    @property
    def environment(self) -> dict[str, str | int]:
        return describe_environment(self.model, self.batch_tokens)

    def __call__(self, examples: Sequence[Example]) -> AnswerLosses:
        """Negative log-likelihood of each example's answer, its end token included; earlier utterances are context.

        Of an answer longer than the token budget only the beginning counts, in tokens and in characters.
        """
        encoded = self.encoder.encode(examples)
        self.counts.update(encoded.counts())
        self.prompts += encoded.prompts
        with advice_on_memory(self.batch_tokens):
            nll = measure_losses(self.model, encoded.prompts, self.batch_tokens)
        return AnswerLosses(
            tuple(row.id for row in encoded.prompts),
            nll,
            np.array([row.num_targets for row in encoded.prompts]),
            np.array([self._num_characters(*pair) for pair in zip(examples, encoded.prompts, strict=True)]),
        )

    def _num_characters(self, example: Example, row: EncodedText) -> int:
        scored = self.encoder.tokenizer.decode(row.token_ids[row.learnt]) if row.answer_cut else example.answer
        return len(scored or "")

    @property
    def writer(self) -> Writer:
        """The writer of new answers with this model."""
        generator = TransformersGenerator(self.model, self.encoder.tokenizer, self.batch_tokens, self.encoder.ends)
        return Writer(self.encoder, generator)


def measure_losses(model: nn.Module, rows: Sequence[EncodedText], batch_tokens: int) -> np.ndarray:
    """Each row's loss (N,) float64 in nats, summed over its answer tokens, in the order of `rows`.

    Raises UserError, naming ids, if a loss is not finite.
    """
    device, packs = next(model.parameters()).device, shortcuts(model).packs

    def run_batch(model: nn.Module, batch: Sequence[EncodedText]) -> np.ndarray:
        return row_losses(model, collate_texts(batch, packs).to(device)).double().cpu().numpy()[:, None]

    lengths = [len(row.token_ids) for row in rows]
    batches = token_batches(lengths, batch_tokens, packs)
    losses, _ = run_batches(model, rows, lengths, batches, run_batch, "score answers")
    return losses[:, 0]
