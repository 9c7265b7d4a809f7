"""Candidates behind a prompt, from token ids to probabilities: by this project, and each in a forward of its own."""

from typing import Any

import numpy as np
import torch

from benchmarks.sides import Answers, Work
from benchmarks.workload import FIRST_ID, Workload, softmax
from nexttoken.engine.candidate_answerer import predict_candidates
from nexttoken.engine.heads import Candidates
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.encoded import NO_LABELS

NUMBER, TOKENS = 25, 10  # candidates of a prompt, and tokens of each


def drawn(workload: Workload) -> list[np.ndarray]:
    """The candidates' ids of every prompt, (NUMBER, TOKENS) each."""
    rng, vocab_size = np.random.default_rng(2), workload.shape.sizes["vocab_size"]
    return [rng.integers(FIRST_ID, vocab_size, (NUMBER, TOKENS), dtype=np.int32) for _ in workload.prompts]


class Ranked(Work):
    """Each prompt once, its candidates as branches behind it; the log-probability of their tokens."""

    def __init__(self, workload: Workload, batch_tokens: int) -> None:
        self.model, self.batch_tokens = workload.model(), batch_tokens
        prompts = zip(workload.prompts, drawn(workload), strict=True)
        self.prompts = [
            EncodedPrompt(str(row), None, "", np.array(ids, np.int32), False, NUMBER, branches=tuple(candidates))
            for row, (ids, candidates) in enumerate(prompts)
        ]

    def run(self) -> Answers:
        head: Any = Candidates("text")
        return Answers(predict_candidates(self.model, head, self.prompts, NO_LABELS, self.batch_tokens).probs)


class ForwardEach(Work):
    """The usual code: prompt and candidate together, one after the other; logits of all positions are computed."""

    def __init__(self, workload: Workload) -> None:
        self.model, self.prompts, self.candidates = workload.model(), workload.prompts, drawn(workload)

    @torch.no_grad()
    def run(self) -> Answers:
        scores = [
            [self._log_prob(prompt, candidate.tolist()) for candidate in candidates]
            for prompt, candidates in zip(self.prompts, self.candidates, strict=True)
        ]
        return Answers(softmax(np.array(scores)))

    def _log_prob(self, prompt: list[int], candidate: list[int]) -> float:
        logits = self.model(torch.tensor([prompt + candidate])).logits[0, len(prompt) - 1 : -1]  # (TOKENS, V)
        return float(logits.float().log_softmax(dim=-1).gather(1, torch.tensor(candidate)[:, None]).sum())
