"""What users otherwise run to get label probabilities: lm-evaluation-harness, padded batches, one row at a time."""

from typing import Any

import numpy as np
import torch

from benchmarks.sides import Answers, Work
from benchmarks.workload import LABEL_IDS, Workload, softmax, tokenizer


class Harness(Work):
    """lm-evaluation-harness: `HFLM`, log-likelihoods of each label after each prompt, its own sorting and cache.

    It is given token ids, which spares it the tokenising.
    """

    def __init__(self, workload: Workload, batch_size: int = 8) -> None:
        from lm_eval.models.huggingface import HFLM

        words = tokenizer(workload.shape.sizes["vocab_size"])
        options: dict[str, Any] = {"batch_size": batch_size, "max_length": 4096, "device": "cpu"}
        self.harness = HFLM(pretrained=workload.model(), tokenizer=words, **options)
        self.requests = [(("", ""), prompt, [label]) for prompt in workload.prompts for label in LABEL_IDS]

    def run(self) -> Answers:
        found = self.harness._loglikelihood_tokens(self.requests, disable_tqdm=True)
        log_probs = np.reshape([log_prob for log_prob, _ in found], (-1, len(LABEL_IDS)))
        return Answers(softmax(log_probs))


class PaddedBatches(Work):
    """As notebooks do it: batches in file order, padded on the left, all logits, the last position's taken."""

    def __init__(self, workload: Workload, batch_size: int = 8) -> None:
        self.model, self.batch_size = workload.model(), batch_size
        self.prompts = workload.prompts
        self.tokenizer = tokenizer(workload.shape.sizes["vocab_size"])
        self.tokenizer.padding_side = "left"

    @torch.no_grad()
    def run(self) -> Answers:
        scores = []
        for start in range(0, len(self.prompts), self.batch_size):
            rows = {"input_ids": self.prompts[start : start + self.batch_size]}
            batch = self.tokenizer.pad(rows, return_tensors="pt")
            logits = self.model(**batch).logits[:, -1]  # (B, V)
            scores.append(logits[:, LABEL_IDS].float().numpy())
        return Answers(softmax(np.concatenate(scores)))


class RowByRow(Work):
    """As the original notebooks do it: a prompt at a time, all logits, the last position's taken."""

    def __init__(self, workload: Workload) -> None:
        self.model, self.prompts = workload.model(), workload.prompts

    @torch.no_grad()
    def run(self) -> Answers:
        scores = []
        for prompt in self.prompts:
            logits = self.model(torch.tensor([prompt])).logits[0, -1]  # (V,)
            scores.append(logits[list(LABEL_IDS)].float().numpy())
        return Answers(softmax(np.array(scores)))
