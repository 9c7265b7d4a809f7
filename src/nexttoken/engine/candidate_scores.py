"""Scores of a row's own candidates: each is a branch behind the prompt, which goes through the model once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.engine.forward.layout import Layout, Pieces, prefix_length
from nexttoken.engine.forward.output_head import reading_labels, require_head, token_losses
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.label_scores import UNKNOWN, votes_of
from nexttoken.models.precision import computing


@dataclass(frozen=True, slots=True)
class CandidateBatch:
    """N rows with B candidates in all, whose T tokens are scored.

    `reads` (M,): sorted, distinct places of the layout; `before` (T,): the place before each of the `targets` (T,);
    `candidate_of` (T,): each target's candidate, `row_of` and `place_of` (B,): a candidate's row and place in it.
    `labels` (N,): places of the right ones, UNKNOWN where none is right or known.
    Where the word behind a candidate is scored, T is B, and the targets are the candidates' last tokens.
    """

    ids: tuple[str, ...]
    layout: Layout
    reads: Tensor
    before: Tensor
    targets: Tensor
    candidate_of: Tensor
    row_of: Tensor
    place_of: Tensor
    labels: Tensor
    rows: tuple
    packs: bool
    whole: bool
    votes: Tensor | None = None  # (N, up to C) shares of the candidates, where a row has votes

    def to(self, device: torch.device) -> "CandidateBatch":
        names = ["layout", "reads", "before", "targets", "candidate_of", "row_of", "place_of", "labels"]
        names += [] if self.votes is None else ["votes"]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def by_row(self, scores: Tensor) -> Tensor:
        """Scores (B,) of all candidates as (N, C), minus infinity where a row has fewer than C."""
        width = int(self.place_of.max()) + 1
        return scores.new_full((len(self.rows), width), -torch.inf).index_put((self.row_of, self.place_of), scores)

    @property
    def filler(self) -> "CandidateBatch":
        """The same rows without labels: they add nothing to the loss."""
        return replace(self, labels=torch.full_like(self.labels, UNKNOWN))

    @property
    def halves(self) -> list["CandidateBatch"]:
        """The same rows in two batches; a batch of one row stays whole."""
        middle, device = len(self.rows) // 2, self.labels.device
        if not middle:
            return [self]
        halves = [collate_candidates(rows, self.whole, self.packs) for rows in (self.rows[:middle], self.rows[middle:])]
        labels = self.labels.tensor_split([middle])  # those of a filler stay unknown
        return [replace(half.to(device), labels=part) for half, part in zip(halves, labels, strict=True)]


def num_read(row: Any, whole: bool, packs: bool = False) -> int:
    """Tokens that go through the model for a row; padded, each candidate goes through with its own copy of the prompt.

    A candidate's last token goes through only where it is read `whole`, for the word behind it.
    """
    sizes = [len(branch) - (not whole) for branch in row.branches]
    if packs:
        return len(row.token_ids) + sum(sizes)
    return len(sizes) * (len(row.token_ids) + max(sizes))


def collate_candidates(
    rows: Sequence[Any], whole: bool, packs: bool = False, prefix: KeyValues | None = None
) -> CandidateBatch:
    """Lay rows out, padded or packed; `prefix` is the KV cache of tokens that all prompts begin with.

    A candidate is scored by its own tokens, or, `whole`, by the word behind it.
    """
    pieces, own = Pieces(), list[np.ndarray]()
    steps: list[list[tuple[int, int]]] = []  # of each candidate: the (piece, token) before each of its targets
    for row in rows:
        tokens = np.asarray(row.token_ids)[prefix_length(prefix) :]
        fed = [branch if whole else branch[:-1] for branch in row.branches]
        trunk = pieces.add(tokens, ROOT, prefix) if packs else ROOT
        for branch in fed:
            if packs:
                piece, start = (pieces.add(branch, trunk) if len(branch) else trunk), (trunk, -1)
            else:
                piece = pieces.add(np.concatenate([tokens, branch]))
                start = (piece, len(tokens) - 1)
            inside = [(piece, place - len(branch)) for place in range(len(branch))]
            steps.append(inside[-1:] if whole else [start, *inside])
        own += [branch[-1:] if whole else branch for branch in row.branches]
    layout = pieces.packed() if packs else pieces.padded()
    reads, before = torch.tensor([layout.place(*step) for some in steps for step in some]).unique(return_inverse=True)
    counts = torch.tensor([len(row.branches) for row in rows])
    labels = torch.tensor([UNKNOWN if row.label is None else row.label for row in rows])
    candidate_of = torch.repeat_interleave(torch.tensor(list(map(len, steps))))
    places = torch.cat([torch.arange(count) for count in counts])
    targets = torch.from_numpy(np.concatenate(own)).long()
    ids, numbers = tuple(row.id for row in rows), (candidate_of, torch.repeat_interleave(counts), places)
    places_of = (layout, reads, before, targets, *numbers)
    return CandidateBatch(ids, *places_of, labels, tuple(rows), packs, whole, votes_of(rows))


def text_scores(model: nn.Module, batch: CandidateBatch, mean: bool = False) -> Tensor:
    """Float32 log-probability (B,) of each candidate's tokens behind the prompt: the sum, or the `mean` of a token."""
    with skipping(model, batch.reads):
        log_probs = -token_losses(model, batch.layout, batch.reads[batch.before], batch.targets)
    totals = log_probs.new_zeros(len(batch.row_of)).index_add(0, batch.candidate_of, log_probs)
    return totals / torch.bincount(batch.candidate_of, minlength=len(totals)) if mean else totals


def answer_scores(model: nn.Module, batch: CandidateBatch, right: int, wrong: int) -> Tensor:
    """Float32 log-odds (B,) of the token `right` against `wrong` behind each candidate."""
    reading = reading_labels(model, batch.reads, [right, wrong])
    with skipping(model, batch.reads), batch.layout.attending(model), reading, computing(model):
        logits = model(**batch.layout.inputs).logits
    require_head(model, logits, len(batch.reads))
    yes, no = logits[0].float()[batch.before].unbind(1)
    return yes - no
