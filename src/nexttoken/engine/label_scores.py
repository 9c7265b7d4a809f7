"""Scores of labels from a causal LM: logits of the labels' tokens at the answer's positions only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.layout import Layout, Pieces, prefix_length
from nexttoken.engine.forward.output_head import reading_labels, require_head
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues
from nexttoken.engine.forward.prefixes import fewest_tokens
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.models.precision import computing
from nexttoken.prompts.label_tokens import Contexts, LabelTokens

UNKNOWN = -1  # label of a prompt that adds nothing to the loss
ALL_OPTIONS = 1 << 20  # more options than any question has


@dataclass(frozen=True, slots=True)
class Batch:
    """N prompts, each followed by every label context (C per prompt; C is 1 for one-token labels).

    `reads` (M,): sorted, distinct places of the layout whose logits are computed; `places` (N, C, J): the index in
    `reads` of each context's steps; `labels` (N,): UNKNOWN for unlabelled prompts; `num_options` (N,): labels from this
    number on are no options of the prompt.
    """

    ids: tuple[str, ...]
    layout: Layout
    reads: Tensor
    places: Tensor
    labels: Tensor
    num_options: Tensor
    rows: tuple  # the prompts
    contexts: Contexts
    packs: bool
    votes: Tensor | None = None  # (N, K) shares of the classes, where a row has votes

    def to(self, device: torch.device) -> "Batch":
        names = ("layout", "reads", "places", "labels", "num_options", *(["votes"] if self.votes is not None else []))
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def only_options(self, scores: Tensor) -> Tensor:
        """Scores (N, K) with minus infinity for absent options, so that their probability is exactly 0."""
        options = torch.arange(scores.shape[1], device=scores.device)
        return scores.masked_fill(options >= self.num_options[:, None], -torch.inf)

    @property
    def filler(self) -> "Batch":
        """The same prompts without labels: they add nothing to the loss."""
        return replace(self, labels=torch.full_like(self.labels, UNKNOWN))

    @property
    def halves(self) -> list["Batch"]:
        """The same prompts in two batches; a batch of one prompt stays whole."""
        middle, device = len(self.rows) // 2, self.labels.device
        if not middle:
            return [self]
        halves = [collate(half, self.contexts, self.packs) for half in (self.rows[:middle], self.rows[middle:])]
        labels = self.labels.tensor_split([middle])  # those of a filler stay unknown
        return [replace(half.to(device), labels=part) for half, part in zip(halves, labels, strict=True)]


def num_read(contexts: Contexts, prompt_tokens: int, packs: bool = False) -> int:
    """Tokens that go through the model for a prompt and its label contexts; packed, the prompt is computed once."""
    if packs:
        return prompt_tokens + sum(map(len, contexts))
    return len(contexts) * (prompt_tokens + max(map(len, contexts)))


def collate(
    prompts: Sequence,
    contexts: Contexts,
    packs: bool = False,
    prefixes: Sequence[KeyValues | None] = (),
    shares: bool = False,
    saved: KeyValues | None = None,
) -> Batch:
    """Lay prompts out, padded or packed.

    Packed, a prompt is computed once for all contexts and, with `shares`, a common prefix once for all neighbours.
    `prefixes` are the KV caches that the prompts begin with; `saved` is filled with this batch's keys and values.
    """
    pieces, prefixes = Pieces(), prefixes or (None,) * len(prompts)
    steps: list[list[list[tuple[int, int]]]] = []  # of every prompt and context: (piece, token) of each step
    if packs:
        rows = [prompt.token_ids[prefix_length(prefix) :] for prompt, prefix in zip(prompts, prefixes, strict=True)]
        trunks = _add_trunks(pieces, rows, prefixes) if shares else [(ROOT, 0)] * len(rows)
        for row, prefix, (trunk, shared) in zip(rows, prefixes, trunks, strict=True):
            steps.append(_add_branches(pieces, row[shared:], contexts, trunk, prefix))
    else:
        steps = [[_add_branches(pieces, p.token_ids, (one,))[0] for one in contexts] for p in prompts]
    layout = pieces.packed(saved) if packs else pieces.padded()
    num_steps = max(map(len, contexts)) + 1  # a shorter context repeats its last place
    padded = [[each + each[-1:] * (num_steps - len(each)) for each in row] for row in steps]
    flat = [[[layout.place(*step) for step in each] for each in row] for row in padded]
    reads, places = torch.tensor(flat).unique(return_inverse=True)
    labels = torch.tensor([UNKNOWN if p.label is None else p.label for p in prompts])
    num_options = torch.tensor([ALL_OPTIONS if p.num_options is None else p.num_options for p in prompts])
    ids = tuple(p.id for p in prompts)
    return Batch(ids, layout, reads, places, labels, num_options, tuple(prompts), contexts, packs, votes_of(prompts))


def votes_of(prompts: Sequence) -> Tensor | None:
    """The prompts' shares of the first classes (N, up to K), all for the label of a prompt without votes; None where
    none has."""
    if not any(prompt.votes for prompt in prompts):
        return None
    shares = torch.zeros(len(prompts), max(max(len(prompt.votes), 1 + (prompt.label or 0)) for prompt in prompts))
    for row, prompt in enumerate(prompts):
        if prompt.votes:
            shares[row, : len(prompt.votes)] = torch.tensor(prompt.votes)
        elif prompt.label is not None:
            shares[row, prompt.label] = 1.0
    return shares


def _add_trunks(pieces: Pieces, rows: Sequence, prefixes: Sequence[KeyValues | None]) -> list[tuple[int, int]]:
    """For each row the piece of its common prefix and the prefix's length; (ROOT, 0) without one."""
    trunks: list[tuple[int, int]] = []
    for _, pairs in groupby(zip(rows, prefixes, strict=True), key=lambda pair: id(pair[1])):  # with the same KV cache
        group_rows, (prefix, *_) = zip(*pairs, strict=True)
        for group in fewest_tokens(group_rows):
            trunk = pieces.add(group_rows[group.members[0]][: group.shared], ROOT, prefix) if group.shared else ROOT
            trunks += [(trunk, group.shared)] * len(group.members)
    return trunks


def _add_branches(
    pieces: Pieces, tokens: Any, contexts: Contexts, trunk: int = ROOT, prefix: KeyValues | None = None
) -> list[list[tuple[int, int]]]:
    """Add a prompt and each context after it; return for each context the (piece, token) of its steps."""
    if len(contexts) == 1:
        size = len(contexts[0])
        piece = pieces.add([*tokens.tolist(), *contexts[0]], trunk, prefix)
        return [[(piece, -1 - size + step) for step in range(size + 1)]]
    prompt = pieces.add(tokens, trunk, prefix)
    branches = [(pieces.add(context, prompt), len(context)) for context in contexts]
    return [[(prompt, -1), *((piece, step) for step in range(size))] for piece, size in branches]


def answer_logits(model: nn.Module, batch: Batch, columns: Sequence[int] | None = None) -> Tensor:
    """Float32 logits (N, C, J, V) at the answer places of a batch, or (N, C, J, k) of the tokens `columns` only."""
    reading = reading_labels(model, batch.reads, columns)
    with skipping(model, batch.reads), batch.layout.attending(model), reading, computing(model):
        logits = model(**batch.layout.inputs).logits
    require_head(model, logits, len(batch.reads))
    return logits[0].float()[batch.places]


def label_scores(model: nn.Module, batch: Batch, tokens: LabelTokens, whole_vocabulary: bool = False) -> Tensor:
    """Scores (N, K) whose softmax over K is the class probabilities.

    One-token labels are scored by their logits, others by the log-probability of their token sequence. If one label is
    a prefix of another ("1" and "10"), the probability of the longer one is subtracted from the shorter one's: labels
    exclude each other, and training on the longer label does not lower the shorter one's score.
    With `whole_vocabulary` one-token labels have log-probabilities, too.
    Raises UserError for a model that does not call its output head.
    """
    if tokens.one_token_each and not whole_vocabulary:
        return answer_logits(model, batch, [ids[0] for ids in tokens.continuations])[:, 0, 0]
    return sequence_scores(answer_logits(model, batch), tokens)


def sequence_scores(logits: Tensor, tokens: LabelTokens) -> Tensor:
    """Log-probabilities (N, K) of exactly each label from logits (N, C, J, V)."""
    contexts, log_probs = tokens.contexts, logits.log_softmax(dim=-1)
    begun: list[Any] = []  # log-probabilities (N,) of texts that begin with each label
    for ids in tokens.continuations:
        row = next(i for i, context in enumerate(contexts) if context[: len(ids) - 1] == ids[:-1])
        begun.append(sum(log_probs[:, row, step, token] for step, token in enumerate(ids)))
    scores = torch.stack(begun, dim=1)
    exact = list(scores.unbind(dim=1))
    for label, ids in enumerate(tokens.continuations):
        longer = {k: other for k, other in enumerate(tokens.continuations) if _is_prefix(ids, other)}
        nearest = [k for k, ids in longer.items() if not any(_is_prefix(other, ids) for other in longer.values())]
        if nearest:
            longer_share = torch.stack([scores[:, k] for k in nearest]).logsumexp(dim=0) - scores[:, label]
            exact[label] = scores[:, label] + torch.log1p(-longer_share.clamp(max=-1e-6).exp())
    return torch.stack(exact, dim=1)


def _is_prefix(ids: Sequence[int], other: Sequence[int]) -> bool:
    return len(other) > len(ids) and other[: len(ids)] == ids
