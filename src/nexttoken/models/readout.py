"""Scores of labels from a causal LM: the head is computed only where an answer is read."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nexttoken.errors import UserError
from nexttoken.models.labels import Contexts, LabelTokens

UNKNOWN = -1  # the label of a row that is read but not learnt from
ALL = 1 << 20  # more options than any question has: every label may be right


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded prompts, each repeated once per label context (C rows an example; C is 1 for one-token labels).

    `token_ids` (N*C, T); `positions` (N*C, J): where logits are read; `labels` (N,), -1 where unknown; `ids` N strings.
    """

    ids: tuple[str, ...]
    token_ids: Tensor
    positions: Tensor
    labels: Tensor
    lengths: Tensor  # (N*C,) tokens without padding
    num_options: Tensor  # (N,) labels from this one on do not stand for an option of the row

    def to(self, device: torch.device) -> "Batch":
        tensors = (self.token_ids, self.positions, self.labels, self.lengths, self.num_options)
        return Batch(self.ids, *(tensor.to(device, non_blocking=True) for tensor in tensors))

    def only_options(self, scores: Tensor) -> Tensor:
        """The scores (N, K) with those of absent options at minus infinity: their probability is exactly 0."""
        places = torch.arange(scores.shape[1], device=scores.device)
        return scores.masked_fill(places >= self.num_options[:, None], -torch.inf)

    @property
    def row_lengths(self) -> Tensor:
        """(N*C, 1): tokens of the row that a position belongs to."""
        return self.lengths[:, None]

    @property
    def filler(self) -> "Batch":
        """The same rows, which count for nothing."""
        return replace(self, labels=torch.full_like(self.labels, UNKNOWN))

    @property
    def halves(self) -> list["Batch"]:
        """The same rows in two batches, each padded to its own longest row; a batch of one row stays whole."""
        if len(self.ids) == 1:
            return [self]
        middle, num_contexts = len(self.ids) // 2, len(self.token_ids) // len(self.ids)
        return [self._rows(slice(None, middle), num_contexts), self._rows(slice(middle, None), num_contexts)]

    def _rows(self, part: slice, num_contexts: int) -> "Batch":
        read = slice(*(None if at is None else at * num_contexts for at in (part.start, part.stop)))
        lengths = self.lengths[read]
        token_ids = self.token_ids[read, : int(lengths.max())]
        own = (self.labels[part], lengths, self.num_options[part])
        return Batch(self.ids[part], token_ids, self.positions[read], *own)


def num_read(contexts: Contexts, prompt_tokens: int) -> int:
    """Tokens that go through the model to read every label after a prompt of that many."""
    return len(contexts) * (prompt_tokens + max(map(len, contexts)))


def collate(prompts: Sequence, contexts: Contexts) -> Batch:
    """Pad prompts on the right. Causal attention never looks right, so padding needs no mask and changes nothing."""
    rows = [torch.tensor([*p.token_ids.tolist(), *context]) for p in prompts for context in contexts]
    starts = torch.tensor([len(p.token_ids) - 1 for p in prompts for _ in contexts])
    lengths = torch.tensor([len(row) for row in rows])
    token_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    offsets = torch.arange(max(map(len, contexts)) + 1)
    positions = (starts[:, None] + offsets).clamp(
        max=lengths[:, None] - 1
    )  # a shorter context repeats its last position
    labels = torch.tensor([UNKNOWN if p.label is None else p.label for p in prompts])
    num_options = torch.tensor([ALL if p.num_options is None else p.num_options for p in prompts])
    return Batch(tuple(p.id for p in prompts), token_ids, positions, labels, lengths, num_options)


@contextmanager
def reading(model: nn.Module, choose: Callable[[Tensor], Tensor]):
    """Within this context `model(...)` returns logits of those hidden states only that `choose` takes of (R, T, H).

    They are taken in front of the output head, inside the model's own forward, so whatever the architecture does
    around its head (soft-capping, scaling, bias, tied or quantised weights) applies as it should.
    """

    def chosen(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (choose(inputs[0]),)

    handle = model.get_output_embeddings().register_forward_pre_hook(chosen)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def reading_at(model: nn.Module, positions: Tensor):
    """`reading` at `positions` (R, J): the logits are (R, J, V)."""
    return reading(model, lambda hidden: gather_positions(hidden, positions))


def gather_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """The hidden states (R, T, H) at `positions` (R, J): (R, J, H)."""
    return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))


def answer_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Float32 logits (N*C, J, V) at the answer positions of a batch.

    Raises UserError for a model that passes its output head by: its logits would be those of other positions.
    """
    with reading_at(model, batch.positions):
        logits = model(input_ids=batch.token_ids, use_cache=False).logits
    require_head(model, logits, batch.positions.shape[1])
    return logits.float()


def require_head(model: nn.Module, logits: Tensor, num_read: int) -> None:
    """Raises UserError unless logits (R, J, V) are those of `num_read` positions."""
    if logits.shape[1] != num_read:
        raise UserError(
            f"{type(model).__name__} does not call its output head, so answers cannot be read from it; choose a model"
            " that runs transformers' own code"
        )


def label_scores(logits: Tensor, tokens: LabelTokens, whole_vocabulary: bool = False) -> Tensor:
    """Scores (N, K) whose softmax over K are the class probabilities.

    One-token labels are scored by their logits, others by the log-probability of their whole token sequence; where one
    label begins another ("1" and "10"), that it goes on as the other is taken off: the two exclude each other, and
    learning the longer one does not teach that the shorter one always goes on.
    `whole_vocabulary` forces log-probabilities for one-token labels too (the loss over the vocabulary needs them).
    """
    contexts = tokens.contexts
    logits = logits.unflatten(0, (-1, len(contexts)))  # (N, C, J, V)
    if whole_vocabulary or not tokens.one_token_each:
        logits = logits.log_softmax(dim=-1)
    scores = []
    for ids in tokens.continuations:
        row = next(i for i, context in enumerate(contexts) if context[: len(ids) - 1] == ids[:-1])
        scores.append(sum(logits[:, row, step, token] for step, token in enumerate(ids)))
    return _exclusive(torch.stack(scores, dim=1), tokens.continuations)  # type: ignore[arg-type]


def _exclusive(scores: Tensor, continuations: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities (N, K) of exactly these labels, from those of texts that begin with them."""
    exact = list(scores.unbind(dim=1))
    for place, ids in enumerate(continuations):
        longer = [k for k, other in enumerate(continuations) if _begins(ids, other)]
        nearest = [k for k in longer if not any(_begins(continuations[o], continuations[k]) for o in longer)]
        if nearest:
            goes_on = torch.stack([scores[:, k] for k in nearest]).logsumexp(dim=0) - scores[:, place]
            exact[place] = scores[:, place] + torch.log1p(-goes_on.clamp(max=-1e-6).exp())
    return torch.stack(exact, dim=1)


def _begins(ids: Sequence[int], other: Sequence[int]) -> bool:
    return len(other) > len(ids) and other[: len(ids)] == ids
