"""Scores of labels from a causal LM: only the places and the tokens that spell an answer are computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.head_rows import reading, require_head
from nexttoken.engine.forward.layout import Layout, Pieces, read_before
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues
from nexttoken.engine.forward.prefixes import Group, fewest_tokens
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.prompts.label_tokens import Contexts, LabelTokens

UNKNOWN = -1  # the label of a row that is read but not learnt from
ALL = 1 << 20  # more options than any question has: every label may be right


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts, each with every label context behind it (C an example; C is 1 for one-token labels).

    `reads` (M,): the places of the layout that are read, in order, each once; `places` (N, C, J): which of them a
    context's steps are; `labels` (N,), -1 where unknown; `ids` N strings.
    """

    ids: tuple[str, ...]
    layout: Layout
    reads: Tensor
    places: Tensor
    labels: Tensor
    num_options: Tensor  # (N,) labels from this one on do not stand for an option of the row
    rows: tuple  # what it was made of,
    make: Callable[[Sequence], "Batch"]  # and how

    def to(self, device: torch.device) -> "Batch":
        names = ("layout", "reads", "places", "labels", "num_options")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def only_options(self, scores: Tensor) -> Tensor:
        """The scores (N, K) with those of absent options at minus infinity: their probability is exactly 0."""
        places = torch.arange(scores.shape[1], device=scores.device)
        return scores.masked_fill(places >= self.num_options[:, None], -torch.inf)

    @property
    def filler(self) -> "Batch":
        """The same rows, which count for nothing."""
        return replace(self, labels=torch.full_like(self.labels, UNKNOWN))

    @property
    def halves(self) -> list["Batch"]:
        """The same rows in two batches; a batch of one row stays whole."""
        middle = len(self.rows) // 2
        parts = (self.rows[:middle], self.rows[middle:]) if middle else ()
        halves = [self.make(part).to(self.labels.device) for part in parts]
        labels = (self.labels[:middle], self.labels[middle:])  # those of a filler count for nothing
        return [replace(half, labels=own) for half, own in zip(halves, labels, strict=False)] or [self]


def num_read(contexts: Contexts, prompt_tokens: int, packs: bool = False) -> int:
    """Tokens that go through the model to read every label after a prompt of that many: packed, it is shared."""
    if packs:
        return prompt_tokens + sum(map(len, contexts))
    return len(contexts) * (prompt_tokens + max(map(len, contexts)))


def collate(
    prompts: Sequence,
    contexts: Contexts,
    packs: bool = False,
    before: Sequence[KeyValues | None] = (),
    shares: bool = False,
    kept: KeyValues | None = None,
) -> Batch:
    """Lay prompts out for reading. Packed, a prompt is read once for all contexts, and with `shares` the beginning
    that neighbours have in common once for all of them. `before` is what each prompt begins with, where that was read
    earlier; `kept` takes the keys and values of this batch.
    """
    pieces, found, before = Pieces(), [], before or (None,) * len(prompts)
    if packs:
        rows = [prompt.token_ids[read_before(own) :] for prompt, own in zip(prompts, before, strict=True)]
        trunks = _add_trunks(pieces, rows, before, shares)
        for row, earlier, (trunk, shared) in zip(rows, before, trunks, strict=True):
            found.append(_branches(pieces, row[shared:], contexts, trunk, earlier))
    else:
        for prompt in prompts:
            own = [(pieces.add([*prompt.token_ids.tolist(), *context]), len(context)) for context in contexts]
            found.append([[(piece, -1 - size + j) for j in range(size + 1)] for piece, size in own])
    layout = pieces.packed(kept) if packs else pieces.padded()
    num_steps = max(map(len, contexts)) + 1
    flat = [
        [[layout.place(*(steps[min(j, len(steps) - 1)])) for j in range(num_steps)] for steps in row] for row in found
    ]  # a shorter context repeats its last place
    reads, places = torch.tensor(flat).unique(return_inverse=True)
    labels = torch.tensor([UNKNOWN if p.label is None else p.label for p in prompts])
    num_options = torch.tensor([ALL if p.num_options is None else p.num_options for p in prompts])
    ids = tuple(p.id for p in prompts)

    def make(part: Sequence) -> Batch:
        return collate(part, contexts, packs)

    return Batch(ids, layout, reads, places, labels, num_options, tuple(prompts), make)


def _add_trunks(
    pieces: Pieces, rows: Sequence, before: Sequence[KeyValues | None], shares: bool
) -> list[tuple[int, int]]:
    """For each row the piece that it goes on from, and how many of its tokens stand there."""
    found: list[tuple[int, int]] = []
    for _, alike in groupby(zip(rows, before, strict=True), key=lambda pair: id(pair[1])):  # behind the same
        some = list(alike)
        own = [row for row, _ in some]
        for group in fewest_tokens(own) if shares else [Group([row], 0, 0) for row in range(len(own))]:
            trunk = pieces.add(own[group.members[0]][: group.shared], ROOT, some[0][1]) if group.shared else ROOT
            found += [(trunk, group.shared)] * len(group.members)
    return found


def _branches(
    pieces: Pieces, tokens: Sequence, contexts: Contexts, trunk: int, before: KeyValues | None
) -> list[list[tuple[int, int]]]:
    """Add a prompt, and each context behind it; return for each context the places (piece, token) of its steps."""
    if len(contexts) == 1:
        size = len(contexts[0])
        whole = pieces.add([*tokens.tolist(), *contexts[0]], trunk, before)  # type: ignore[attr-defined]
        return [[(whole, -1 - size + j) for j in range(size + 1)]]
    prompt = pieces.add(tokens, trunk, before)
    branches = [(pieces.add(context, prompt), len(context)) for context in contexts if context]
    steps = [[(prompt, -1), *((piece, j) for j in range(size))] for piece, size in branches]
    return steps if all(contexts) else [[(prompt, -1)], *steps]


def answer_logits(model: nn.Module, batch: Batch, columns: Sequence[int] | None = None) -> Tensor:
    """Float32 logits (N, C, J, V) at the answer places of a batch, or (N, C, J, k) of the tokens `columns` alone.

    Raises UserError for a model that passes its output head by: its logits would be those of other positions.
    """
    with skipping(model, batch.reads), batch.layout.attending(model), reading(model, batch.reads, columns):
        logits = model(**batch.layout.inputs).logits
    require_head(model, logits, len(batch.reads))
    return logits[0].float()[batch.places]


def label_scores(model: nn.Module, batch: Batch, tokens: LabelTokens, whole_vocabulary: bool = False) -> Tensor:
    """Scores (N, K) whose softmax over K are the class probabilities.

    One-token labels are scored by their logits, others by the log-probability of their whole token sequence; where one
    label begins another ("1" and "10"), that it goes on as the other is taken off: the two exclude each other, and
    learning the longer one does not teach that the shorter one always goes on.
    `whole_vocabulary` forces log-probabilities for one-token labels too (the loss over the vocabulary needs them).
    """
    if tokens.one_token_each and not whole_vocabulary:
        return answer_logits(model, batch, [ids[0] for ids in tokens.continuations])[:, 0, 0]
    return sequence_scores(answer_logits(model, batch), tokens)


def sequence_scores(logits: Tensor, tokens: LabelTokens) -> Tensor:
    """Log-probabilities (N, K) of exactly each label, from logits (N, C, J, V)."""
    contexts, log_probs, scores = tokens.contexts, logits.log_softmax(dim=-1), []
    for ids in tokens.continuations:
        row = next(i for i, context in enumerate(contexts) if context[: len(ids) - 1] == ids[:-1])
        scores.append(sum(log_probs[:, row, step, token] for step, token in enumerate(ids)))
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
