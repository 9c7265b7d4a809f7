"""Heads: losses and scores of a transformer for labels, in three ways, and for open answers."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.last_layer import decoder, unwrapped
from nexttoken.engine.forward.output_head import in_float32
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.label_scores import UNKNOWN, Batch, collate, label_scores, num_read
from nexttoken.engine.text_losses import TextBatch, answer_losses, collate_texts
from nexttoken.errors import UserError
from nexttoken.models.precision import computing
from nexttoken.prompts.label_tokens import Contexts, LabelTokens


class Head(Protocol):
    """The loss of a batch and the layout it needs. A head has no weights; they are in the model."""

    def num_outputs(self, labels: LabelTokens) -> int | None:
        """Outputs of a separate classification layer; None for the language model's head."""
        return None

    def contexts(self, labels: LabelTokens) -> Contexts:
        """The token sequences that are appended to each prompt, one at a time."""
        return ((),)

    def num_read(self, row: Any, labels: LabelTokens, packs: bool = False) -> int:
        """Tokens that go through the model for one row."""
        return num_read(self.contexts(labels), len(row.token_ids), packs)

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> Any:
        """One batch of rows, padded or packed."""

    def loss(self, model: nn.Module, batch: Any, labels: LabelTokens) -> Tensor:
        """Cross-entropy summed over the batch's targets: rows with a known label, or answer tokens."""

    def dev_loss(self, model: nn.Module, batch: Any, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        """The summed loss that checkpoints are selected by, and the number of targets."""


class LabelHead(Head, Protocol):
    """A head that gives class probabilities."""

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        """Float32 scores (N, K) whose softmax is the class probabilities; minus infinity for absent options."""


class LabelSoftmax(Head):
    """Softmax over the label tokens only, in training and prediction.

    Training shares `label_smoothing` of the right label's weight out among a row's possible labels (Szegedy et al.
    2016). Dev losses and scores do not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"head.label_smoothing={label_smoothing} is not accepted: expected 0 (none) to below 1")
        self.label_smoothing = label_smoothing

    def contexts(self, labels: LabelTokens) -> Contexts:
        return labels.contexts

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> Batch:
        return collate(rows, self.contexts(labels), packs)

    def dev_loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        return label_losses(self.scores(model, batch, labels).log_softmax(1), batch.labels), (
            batch.labels != UNKNOWN
        ).sum()

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        return batch.only_options(label_scores(model, batch, labels))

    def loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        return label_losses(self.scores(model, batch, labels).log_softmax(1), batch.labels, self.label_smoothing)


class WholeVocabulary(LabelSoftmax):
    """Trained with the softmax over the vocabulary, like a language model; predicts like LabelSoftmax.

    The loss is that of exactly the label, not of longer labels that begin with it (see `label_scores`).
    """

    def loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        log_probs = label_scores(model, batch, labels, whole_vocabulary=True)
        return label_losses(log_probs, batch.labels, self.label_smoothing)


class Classification(LabelSoftmax):
    """A new linear layer on the prompt's last hidden state, as in AutoModelForSequenceClassification."""

    offers: ClassVar[frozenset[str]] = frozenset()

    def num_outputs(self, labels: LabelTokens) -> int | None:
        return len(labels.labels)

    def contexts(self, labels: LabelTokens) -> Contexts:
        return ((),)  # the prompt alone

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        with skipping(model, batch.reads), batch.layout.attending(model), computing(model):
            hidden = decoder(model)(**batch.layout.inputs).last_hidden_state.flatten(0, 1)  # (R*T, H)
        last = hidden[batch.reads][batch.places[:, 0, 0]]  # (N, H)
        score = unwrapped(model).score
        with in_float32(score):
            return batch.only_options(score(last))


def label_losses(log_probs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the rows with a known label; `log_probs` is (N, K), minus infinity for absent options.

    The target has 1 - smoothing at the label, and smoothing is shared out equally among the row's options.
    """
    loss = nn.functional.nll_loss(log_probs, labels, ignore_index=UNKNOWN, reduction="sum")
    if not smoothing:
        return loss
    known = log_probs[labels != UNKNOWN]
    possible = known.isfinite()
    uniform = known.where(possible, torch.zeros_like(known)).sum(1) / possible.sum(1)
    return (1 - smoothing) * loss - smoothing * uniform.sum()


class AnswerText(Head):
    """Next-token loss over the whole vocabulary on the tokens of open answers."""

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> TextBatch:
        return collate_texts(rows, packs)

    def loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> Tensor:
        return answer_losses(model, batch).sum()

    def dev_loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        return answer_losses(model, batch).sum(), batch.num_targets
