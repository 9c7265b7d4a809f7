"""Heads: losses and scores of a transformer for labels, for a row's own candidates, and for open answers."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from nexttoken.engine.candidate_scores import CandidateBatch, answer_scores, collate_candidates, text_scores
from nexttoken.engine.candidate_scores import num_read as num_candidate_tokens
from nexttoken.engine.forward.last_layer import decoder, unwrapped
from nexttoken.engine.forward.output_head import in_float32
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.label_scores import UNKNOWN, Batch, collate, label_scores, num_read
from nexttoken.engine.text_losses import TextBatch, answer_losses, collate_texts
from nexttoken.errors import UserError, nearest
from nexttoken.models.precision import computing
from nexttoken.prompts.label_tokens import Contexts, LabelTokens

SCORES = ("answer", "text", "text_mean")
RIGHT = "\n### Right?\n"  # behind a candidate, before the answer to it


class Head(Protocol):
    """The loss of a batch and the layout it needs. A head has no weights; they are in the model."""

    def num_outputs(self, labels: LabelTokens) -> int | None:
        """Outputs of a separate classification layer; None for the language model's head."""
        return None

    def label_names(self, prompt: Any) -> tuple[str, ...]:
        """The texts whose tokens a fold saves (labels.json); () for none."""
        return tuple(prompt.labels)

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

    def dev_loss(self, model: nn.Module, batch: Any, labels: LabelTokens) -> tuple[Tensor, Tensor, Tensor | None]:
        """The summed loss, the number of targets, and `LabelHead.scores`, by which checkpoints are chosen."""


class LabelHead(Head, Protocol):
    """A head that gives class probabilities."""

    def scores(self, model: nn.Module, batch: Any, labels: LabelTokens) -> Tensor:
        """Float32 scores (N, K) whose softmax is the class probabilities; minus infinity for absent options."""


class LabelSoftmax(Head):
    """Softmax over the label tokens only, in training and prediction.

    Training shares `label_smoothing` of the right label's weight out among a row's possible labels (Szegedy et al.
    2016). With `r_drop`, the paper's alpha, it runs each row twice with other dropout and adds their divergence (Liang
    et al. 2021). Dev losses and scores do neither.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def __init__(self, label_smoothing: float = 0.0, r_drop: float = 0.0) -> None:
        self.label_smoothing, self.r_drop = checked_smoothing(label_smoothing), r_drop
        if not 0 <= r_drop < float("inf"):
            raise UserError(f"head.r_drop={r_drop} is not accepted: expected 0 (none) or a number above it")

    def contexts(self, labels: LabelTokens) -> Contexts:
        return labels.contexts

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> Batch:
        return collate(rows, self.contexts(labels), packs)

    def dev_loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> tuple[Tensor, Tensor, Tensor]:
        return dev_losses(self.scores(model, batch, labels), batch.labels, batch.votes)

    def scores(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        return batch.only_options(label_scores(model, batch, labels))

    def loss(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        log_probs = self._log_probs(model, batch, labels)
        loss = label_losses(log_probs, batch.labels, self.label_smoothing, batch.votes)
        if not self.r_drop:
            return loss
        again = self._log_probs(model, batch, labels)
        mean = (loss + label_losses(again, batch.labels, self.label_smoothing, batch.votes)) / 2
        return mean + self.r_drop / 4 * divergence(log_probs, again, batch.labels)

    def _log_probs(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        """Log-probabilities (N, K) that the loss is computed from."""
        return self.scores(model, batch, labels).log_softmax(1)


class WholeVocabulary(LabelSoftmax):
    """Trained with the softmax over the vocabulary, like a language model; predicts like LabelSoftmax.

    The loss is that of exactly the label, not of longer labels that begin with it (see `label_scores`).
    """

    def _log_probs(self, model: nn.Module, batch: Batch, labels: LabelTokens) -> Tensor:
        return label_scores(model, batch, labels, whole_vocabulary=True)


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


class Candidates(Head):
    """Softmax over a row's own candidates, each a branch behind the prompt, scored apart from the others.

    `score` is `answer`: the log-odds of the first of `answers` against the second behind the candidate and `after`;
    `text`: the log-probability of the candidate's tokens, with those of `after`; `text_mean`: the mean of a token.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary", "candidates"})

    def __init__(
        self,
        score: str = "answer",
        after: str | None = None,
        answers: Sequence[str] = ("Yes", "No"),
        label_smoothing: float = 0.0,
    ) -> None:
        if score not in SCORES:
            raise UserError(f"head.score={score!r} is not accepted; {nearest(str(score), SCORES)}")
        if len(answers) != 2 or not all(isinstance(answer, str) and answer for answer in answers):
            raise UserError(f"head.answers={answers!r} is not accepted: expected two words, such as [Yes, No]")
        self.score, self.whole = score, score == "answer"
        self.after = after if after is not None else RIGHT if self.whole else ""
        self.answers = tuple(answers) if self.whole else ()
        self.label_smoothing = checked_smoothing(label_smoothing)

    def label_names(self, prompt: Any) -> tuple[str, ...]:
        return self.answers

    def num_read(self, row: Any, labels: LabelTokens, packs: bool = False) -> int:
        return num_candidate_tokens(row, self.whole, packs)

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> CandidateBatch:
        return collate_candidates(rows, self.whole, packs)

    def scores(self, model: nn.Module, batch: CandidateBatch, labels: LabelTokens) -> Tensor:
        """Float32 scores (N, C) of each row's candidates; minus infinity from a row's number of candidates on."""
        if not self.whole:
            return batch.by_row(text_scores(model, batch, mean=self.score == "text_mean"))
        right, wrong = (ids[0] for ids in labels.continuations)
        return batch.by_row(answer_scores(model, batch, right, wrong))

    def loss(self, model: nn.Module, batch: CandidateBatch, labels: LabelTokens) -> Tensor:
        log_probs = self.scores(model, batch, labels).log_softmax(1)
        return label_losses(log_probs, batch.labels, self.label_smoothing, batch.votes)

    def dev_loss(self, model: nn.Module, batch: CandidateBatch, labels: LabelTokens) -> tuple[Tensor, Tensor, Tensor]:
        return dev_losses(self.scores(model, batch, labels), batch.labels, batch.votes)


def checked_smoothing(label_smoothing: float) -> float:
    """The share. Raises UserError for one outside of 0 to below 1."""
    if not 0 <= label_smoothing < 1:
        raise UserError(f"head.label_smoothing={label_smoothing} is not accepted: expected 0 (none) to below 1")
    return label_smoothing


def dev_losses(scores: Tensor, labels: Tensor, votes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The summed cross-entropy of the scores (N, K), the number of rows with a known label, and the scores."""
    return label_losses(scores.log_softmax(1), labels, votes=votes), (labels != UNKNOWN).sum(), scores


def label_losses(log_probs: Tensor, labels: Tensor, smoothing: float = 0.0, votes: Tensor | None = None) -> Tensor:
    """Cross-entropy summed over the rows with a known label; `log_probs` is (N, K), minus infinity for absent options.

    The target is the label, or the shares of `votes` (N, up to K), times 1 - smoothing; smoothing is shared out equally
    among the row's options.
    """
    is_known = labels != UNKNOWN
    if votes is None:
        loss = nn.functional.nll_loss(log_probs, labels, ignore_index=UNKNOWN, reduction="sum")
    else:
        shares = nn.functional.pad(votes, (0, log_probs.shape[1] - votes.shape[1]))[is_known]
        loss = -(shares * log_probs[is_known].masked_fill(shares == 0, 0.0)).sum()
    if not smoothing:
        return loss
    known = log_probs[is_known]
    possible = known.isfinite()
    uniform = known.where(possible, torch.zeros_like(known)).sum(1) / possible.sum(1)
    return (1 - smoothing) * loss - smoothing * uniform.sum()


def divergence(log_probs: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """KL divergences in both directions, summed over the rows with a known label; both are (N, K)."""
    gaps = (log_probs - others).masked_fill(~log_probs.isfinite(), 0.0)
    return ((log_probs.exp() - others.exp()) * gaps)[labels != UNKNOWN].sum()


class AnswerText(Head):
    """Next-token loss over the whole vocabulary on the tokens of open answers."""

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    offers: ClassVar[frozenset[str]] = frozenset({"vocabulary"})

    def collate(self, rows: Sequence[Any], labels: LabelTokens, packs: bool = False) -> TextBatch:
        return collate_texts(rows, packs)

    def loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> Tensor:
        return answer_losses(model, batch).sum()

    def dev_loss(self, model: nn.Module, batch: TextBatch, labels: LabelTokens) -> tuple[Tensor, Tensor, None]:
        return answer_losses(model, batch).sum(), batch.num_targets, None
