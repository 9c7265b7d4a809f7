"""Asks the model every question once, in batches filled by tokens, and returns class probabilities."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.batches import token_batches
from nexttoken.models.encode import EncodedPrompt, Encoder
from nexttoken.models.labels import LabelTokens
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.readout import answer_logits, collate, label_scores
from nexttoken.progress import Progress
from nexttoken.types import Example, LabelPredictions


class LabelAnswerer:
    """A model with its encoder: examples in, class probabilities out. `counts` adds up what each call cut."""

    def __init__(self, model: nn.Module, encoder: Encoder, labels: LabelTokens | None, batch_tokens: int) -> None:
        self.model, self.encoder, self.labels, self.batch_tokens = model, encoder, labels, batch_tokens
        self.counts: Counter[str] = Counter()
        self.prompts: list[EncodedPrompt] = []

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        encoded = self.encoder.encode(examples, self.labels)
        self.labels = encoded.labels
        self.counts.update(encoded.counts())
        self.prompts += encoded.prompts
        with advice_on_memory(self.batch_tokens):
            return predict_labels(self.model, encoded.prompts, encoded.labels, self.batch_tokens)


@torch.inference_mode()
def predict_labels(
    model: nn.Module, prompts: Sequence[EncodedPrompt], tokens: LabelTokens, batch_tokens: int
) -> LabelPredictions:
    """Class probabilities in the order of `prompts`: softmax in float32 over the label scores.

    Raises UserError, naming ids, when the model returns something that is not finite: no NaN ever reaches a file.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    probs = np.empty((len(prompts), len(tokens.labels)))
    with Progress(len(prompts), "predict") as progress:
        for rows in token_batches([tokens.num_read(len(p.token_ids)) for p in prompts], batch_tokens):
            batch = collate([prompts[row] for row in rows], tokens).to(device)
            scores = label_scores(answer_logits(model, batch), tokens)
            probs[rows] = scores.softmax(dim=-1).double().cpu().numpy()
            progress.advance(len(rows))
    model.train(training)
    bad = [p.id for p, row in zip(prompts, probs, strict=True) if not np.isfinite(row).all()]
    if bad:
        raise UserError(
            f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
        )
    return LabelPredictions(tuple(p.id for p in prompts), probs / probs.sum(axis=1, keepdims=True))
