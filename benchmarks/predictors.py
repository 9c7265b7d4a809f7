"""Prediction from token ids to label probabilities: by this project, lm-evaluation-harness and two common loops."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.sides import Answers, Work
from benchmarks.workload import LABEL_IDS, MatrixRate, Workload, softmax, tokenizer
from nexttoken.engine.forward import parallel_batches
from nexttoken.engine.forward.prefixes import PrefixCache
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens

NAMES = ("A", "B", "tie")
LABELS = LabelTokens(NAMES, tuple((i,) for i in LABEL_IDS), tuple((name,) for name in NAMES), num_rejoined=0)


def encoded(workload: Workload) -> list[EncodedPrompt]:
    prompts = [np.array(ids, dtype=np.int32) for ids in workload.prompts]
    return [EncodedPrompt(str(row), workload.labels[row], "", ids, False) for row, ids in enumerate(prompts)]


class Predict(Work):
    """Label probabilities by `predict_labels`; `options` are its further keywords."""

    def __init__(self, workload: Workload, batch_tokens: int, **options: Any) -> None:
        self.model, self.prompts = workload.model(), encoded(workload)
        self.batch_tokens, self.options = batch_tokens, options
        self.rate = MatrixRate(self.model)

    def run(self) -> Answers:
        predictions = predict_labels(
            self.model, LabelSoftmax(), self.prompts, LABELS, self.batch_tokens, **self.options
        )
        return Answers(predictions.probs)


class OneStream(Predict):
    """The same with one batch after the other, each on all threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        use_one_stream()
        super().__init__(*args, **kwargs)


class PredictTwice(Predict):
    """Two passes: over the first `share` of every prompt, which stands for a question, then over the whole prompts."""

    def __init__(self, workload: Workload, batch_tokens: int, share: float, caches: bool) -> None:
        super().__init__(workload, batch_tokens)
        self.caches = caches
        starts = [prompt.token_ids[: int(share * len(prompt.token_ids))] for prompt in self.prompts]
        self.questions = [replace(prompt, token_ids=ids) for prompt, ids in zip(self.prompts, starts, strict=True)]

    def run(self) -> Answers:
        cache = PrefixCache(lambda probs: np.ones(len(probs), dtype=bool)) if self.caches else None
        for rows in (self.questions, self.prompts):
            predictions = predict_labels(self.model, LabelSoftmax(), rows, LABELS, self.batch_tokens, prefixes=cache)
        return Answers(predictions.probs)


def use_one_stream() -> None:
    """Let this process run one batch at a time on the CPU."""
    parallel_batches.max_parallel_batches = lambda *_: 1


class Harness(Work):
    """lm-evaluation-harness: `HFLM` with its sorting and cache, log-likelihoods of each label after each prompt."""

    def __init__(self, workload: Workload, batch_size: int = 8) -> None:
        from lm_eval.models.huggingface import HFLM

        words = tokenizer(workload.shape.sizes["vocab_size"])
        options: dict[str, Any] = {"batch_size": batch_size, "max_length": 4096, "device": "cpu"}
        self.harness = HFLM(pretrained=workload.model(), tokenizer=words, **options)
        self.requests = [(("", ""), prompt, [label]) for prompt in workload.prompts for label in LABEL_IDS]

    def run(self) -> Answers:
        scored = self.harness._loglikelihood_tokens(self.requests, disable_tqdm=True)
        log_probs = np.reshape([log_prob for log_prob, _ in scored], (-1, len(LABEL_IDS)))
        return Answers(softmax(log_probs))


class PaddedBatches(Work):
    """The usual notebook code: batches in file order, padded on the left; logits of all positions are computed."""

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
    """The code of the first notebooks: one prompt at a time; logits of all positions are computed."""

    def __init__(self, workload: Workload) -> None:
        self.model, self.prompts = workload.model(), workload.prompts

    @torch.no_grad()
    def run(self) -> Answers:
        scores = []
        for prompt in self.prompts:
            logits = self.model(torch.tensor([prompt])).logits[0, -1]  # (V,)
            scores.append(logits[list(LABEL_IDS)].float().numpy())
        return Answers(softmax(np.array(scores)))
