"""Probabilities of each row's own candidates, of any number: in several calls where they do not fit into one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from nexttoken.engine.batches import token_batches
from nexttoken.engine.candidate_scores import collate_candidates, num_read
from nexttoken.engine.forward.layout import prefix_length
from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.shortcuts import compute_common_prefix, shortcuts
from nexttoken.engine.heads import Candidates
from nexttoken.engine.journal import NO_JOURNAL, LabelJournal
from nexttoken.engine.label_answerer import ModelAnswerer
from nexttoken.engine.non_finite import fill_with_prior, run_again_in_float32
from nexttoken.engine.run_batches import run_batches
from nexttoken.metrics.probabilities import softmax
from nexttoken.models.memory import advice_on_memory
from nexttoken.prompts.encode_candidates import CandidateEncoder
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.types import Example, LabelPredictions


class CandidateAnswerer(ModelAnswerer):
    """Examples with options in, probabilities of the options out: (N, C), 0 from an example's number of options on."""

    def __init__(
        self, model: nn.Module, head: Candidates, encoder: CandidateEncoder, labels: LabelTokens, batch_tokens: int
    ) -> None:
        super().__init__(model, encoder, labels, batch_tokens)
        self.head = head

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        prompts = self.collect(self.encoder.encode(examples, self.labels))
        self.leave_float16(prompts)
        own: dict[str, Any] = {"candidates": self.head.score, "labels": self.labels.continuations}
        identity = own | {"precision": self.environment["precision"]}
        with advice_on_memory(self.batch_tokens), self.journals.journal(identity) as journal:
            model = (self.model, self.head, prompts, self.labels, self.batch_tokens)
            return predict_candidates(*model, journal=journal, counts=self.counts)


def predict_candidates(
    model: nn.Module,
    head: Candidates,
    prompts: Sequence[EncodedPrompt],
    labels: LabelTokens,
    batch_tokens: int,
    journal: LabelJournal = NO_JOURNAL,
    counts: Counter[str] | None = None,
) -> LabelPredictions:
    """Probabilities (N, C) of each row's candidates in float64: the softmax over all their scores.

    A candidate's score does not depend on the others, so those of a row that goes through the model in several parts
    are joined by one softmax over all. What is not finite is asked again in float32, as of label probabilities.
    """
    packs, device = shortcuts(model).packs, next(model.parameters()).device
    parts = [part for row, prompt in enumerate(prompts) for part in in_parts(prompt, row, head, batch_tokens, packs)]
    rows, row_of = [part for _, part in parts], [row for row, _ in parts]
    prefix = compute_common_prefix(model, [prompt.token_ids for prompt in rows])
    lengths = [num_read(row, head.whole, packs) - prefix_length(prefix) for row in rows]
    width = max(len(row.branches) for row in rows) if rows else 1

    def scores(model: nn.Module, batch: Sequence[EncodedPrompt], prefix: KeyValues | None) -> np.ndarray:
        laid_out = collate_candidates(batch, head.whole, packs, prefix).to(device)
        found = head.scores(model, laid_out, labels).double().cpu().numpy()
        places = np.arange(width) < np.array([len(row.branches) for row in batch])[:, None]
        filled = np.zeros(places.shape)  # a journal holds finite numbers only
        filled[places] = found[places[:, : found.shape[1]]]
        return filled

    batches = token_batches(lengths, batch_tokens, packs)
    values, seconds = run_batches(
        model, rows, lengths, batches, lambda model, batch: scores(model, batch, prefix), "predict", journal
    )
    again = {"num_in_float32": run_again_in_float32(model, rows, values, lambda m, row: scores(m, [row], None)[0])}
    probs = joined(prompts, rows, row_of, values)
    again["num_prior"] = fill_with_prior(prompts, probs)
    if counts is not None:
        counts.update({name: number for name, number in again.items() if number})
    took = np.bincount(row_of, weights=seconds, minlength=len(prompts))
    return LabelPredictions(tuple(prompt.id for prompt in prompts), probs, {"seconds": took})


def in_parts(
    prompt: EncodedPrompt, row: int, head: Candidates, batch_tokens: int, packs: bool
) -> Iterator[tuple[int, EncodedPrompt]]:
    """Pairs of the row's number and its prompt with as many candidates as fit into a batch, at least one."""
    start, number = 0, len(prompt.branches)
    while start < number:
        end = start + 1
        longest = total = len(prompt.branches[start])
        while end < number:
            size = len(prompt.branches[end])
            longest, total = max(longest, size), total + size
            taken = len(prompt.token_ids) + total
            if not packs:
                taken = (end + 1 - start) * (len(prompt.token_ids) + longest)
            if taken > batch_tokens:
                break
            end += 1
        is_whole = (start, end) == (0, number)
        yield row, prompt if is_whole else replace(prompt, branches=prompt.branches[start:end], num_options=end - start)
        start = end


def joined(
    prompts: Sequence[EncodedPrompt], parts: Sequence[EncodedPrompt], row_of: Sequence[int], values: np.ndarray
) -> np.ndarray:
    """Probabilities (N, C): the softmax over the scores of all parts of a row, the parts in order."""
    sizes = [len(prompt.branches) for prompt in prompts]
    scores = np.full((len(prompts), max(sizes, default=1)), -np.inf)
    filled = [0] * len(prompts)
    for part, row, own in zip(parts, row_of, values, strict=True):
        number = len(part.branches)
        scores[row, filled[row] : filled[row] + number] = own[:number]
        filled[row] += number
    return softmax(scores)
