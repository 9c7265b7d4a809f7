"""Losses of known open answers, and new open answers, of a model with its encoder."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from nexttoken.engine.batches import token_batches
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.writer import Writer
from nexttoken.engine.label_answerer import ModelAnswerer
from nexttoken.engine.run_batches import run_batches
from nexttoken.engine.text_losses import collate_texts, row_losses
from nexttoken.models.memory import advice_on_memory
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS, EncodedText
from nexttoken.types import AnswerLosses, Example


class TextAnswerer(ModelAnswerer):
    """Examples in, losses of their answers or new answers out."""

    def __init__(self, model: nn.Module, encoder: TextEncoder, batch_tokens: int) -> None:
        super().__init__(model, encoder, NO_LABELS, batch_tokens)

    def __call__(self, examples: Sequence[Example]) -> AnswerLosses:
        """Negative log-likelihood of each example's answer, its end token included; earlier utterances are context.

        Of an answer longer than the token budget only the beginning counts, in tokens and in characters.
        """
        rows: list[EncodedText] = self.collect(self.encoder.encode(examples))
        with advice_on_memory(self.batch_tokens):
            nll = measure_losses(self.model, rows, self.batch_tokens)
        decode = self.encoder.tokenizer.decode
        scored = [
            decode(row.token_ids[row.learnt]) if row.answer_cut else example.answer or ""
            for example, row in zip(examples, rows, strict=True)
        ]
        num_tokens, num_characters = [row.num_targets for row in rows], list(map(len, scored))
        return AnswerLosses(tuple(row.id for row in rows), nll, np.array(num_tokens), np.array(num_characters))

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
