"""What is asked of a transformer: class probabilities in three ways (the head question's contestants), or a text."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from nexttoken.engine.forward.last_layer import decoder
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.label_scores import UNKNOWN, Batch, collate, label_scores, num_read
from nexttoken.engine.text_losses import TextBatch, answer_losses, collate_texts
from nexttoken.prompts.label_tokens import Contexts, LabelTokens


class Head(Protocol):
    """What is asked of the model. Heads hold no weights: those are the model's."""

    def num_outputs(self, labels: LabelTokens) -> int | None:
        """Outputs of a classification layer of its own; None for the language model's head."""

    def contexts(self, labels: LabelTokens) -> Contexts:
        """The token strings to append to each row, which goes through the model once with each."""

    def num_read(self, row: Any, labels: LabelTokens, packs: bool = False) -> int:
        """Tokens that go through the model to read a row's answer."""

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> Any:
        """Rows as one batch, padded or packed."""

    def loss(self, model: nn.Module, batch: Any, labels: LabelTokens) -> Tensor:
        """Cross-entropy summed over the batch's targets: rows with a known label, or the tokens of answers."""

    def dev_loss(self, model: nn.Module, batch: Any, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        """The loss that checkpoints are chosen by, summed, and the number of targets."""


class LabelHead(Head, Protocol):
    """A head that gives class probabilities."""

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        """(N, K) float32, whose softmax over K are the class probabilities; minus infinity for absent options."""


class LabelSoftmax:
    """Softmax over the label tokens alone: the rest of the vocabulary plays no part, in training or prediction."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def num_outputs(self, labels: LabelTokens) -> int | None:
        return None

    def contexts(self, labels: LabelTokens) -> Contexts:
        return labels.contexts

    def num_read(self, row: Any, labels: LabelTokens, packs: bool = False) -> int:
        return num_read(self.contexts(labels), len(row.token_ids), packs)

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> Batch:
        return collate(rows, self.contexts(labels), packs)

    def dev_loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        scores = self.scores(model, batch, labels)
        loss = nn.functional.cross_entropy(scores, batch.labels, ignore_index=UNKNOWN, reduction="sum")
        return loss, (batch.labels != UNKNOWN).sum()

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        return batch.only_options(label_scores(model, batch, labels))

    def loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        scores = self.scores(model, batch, labels)
        return nn.functional.cross_entropy(scores, batch.labels, ignore_index=UNKNOWN, reduction="sum")


class WholeVocabulary(LabelSoftmax):
    """Trained with the softmax over all tokens, as language models are; read through the labels like LabelSoftmax.

    Where one label begins another, the loss is of exactly the label: that it goes on is taken off, as in reading.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        log_probs = label_scores(model, batch, labels, whole_vocabulary=True)
        return nn.functional.nll_loss(log_probs, batch.labels, ignore_index=UNKNOWN, reduction="sum")


class Classification(LabelSoftmax):
    """A new linear layer on the prompt's last hidden state, as AutoModelForSequenceClassification reads it."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset()

    def num_outputs(self, labels: LabelTokens) -> int | None:
        return len(labels.labels)

    def contexts(self, labels: LabelTokens) -> Contexts:
        return ((),)  # the prompt as it is: how a label is spelt does not matter

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator] # inside peft's wrapper
        with skipping(model, batch.reads), batch.layout.attending(model):
            hidden = decoder(model)(**batch.layout.inputs).last_hidden_state.flatten(0, 1)  # (R*T, H)
        last = hidden[batch.reads][batch.places[:, 0, 0]]  # (N, H)
        *_, trained = plain.score.parameters()  # beside an adapter, peft's copy: float32 on a base of 16 bit
        return batch.only_options(plain.score(last.to(trained.dtype)).float())


class AnswerText:
    """The loss over the whole vocabulary on the tokens of open answers, read at their positions only."""

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def num_outputs(self, labels: LabelTokens) -> int | None:
        return None

    def contexts(self, labels: LabelTokens) -> Contexts:
        return ((),)  # the answer stands in the row itself

    def num_read(self, row: Any, labels: LabelTokens, packs: bool = False) -> int:
        return len(row.token_ids)

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> TextBatch:
        return collate_texts(rows, packs)

    def loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> Tensor:
        return answer_losses(model, batch).sum()

    def dev_loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> tuple[Tensor, Tensor]:
        return answer_losses(model, batch).sum(), batch.num_targets
