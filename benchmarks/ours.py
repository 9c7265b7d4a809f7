"""This project's side of the comparisons of prediction: its own code from token ids to probabilities."""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.sides import Answers, Work
from benchmarks.workload import LABEL_IDS, MatrixRate, Workload
from nexttoken.engine.forward import parallel_batches
from nexttoken.engine.forward.prefix_cache import PrefixCache
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens

NAMES = ("A", "B", "tie")
LABELS = LabelTokens(NAMES, tuple((i,) for i in LABEL_IDS), tuple((name,) for name in NAMES), num_rejoined=0)


def encoded(workload: Workload) -> list[EncodedPrompt]:
    rows = zip(workload.prompts, workload.labels, strict=True)
    return [
        EncodedPrompt(str(row), label, "", np.array(ids, dtype=np.int32), False)
        for row, (ids, label) in enumerate(rows)
    ]


class Predict(Work):
    """Label probabilities by `predict_labels`; `options` are its further keywords."""

    def __init__(self, workload: Workload, batch_tokens: int, **options: Any) -> None:
        self.model, self.prompts = workload.model(), encoded(workload)
        self.batch_tokens, self.options = batch_tokens, options
        self.rate = MatrixRate(self.model)

    def run(self) -> Answers:
        found = predict_labels(self.model, LabelSoftmax(), self.prompts, LABELS, self.batch_tokens, **self.options)
        return Answers(found.probs)


class OneStream(Predict):
    """The same with one batch after the other, each on all threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        use_one_stream()
        super().__init__(*args, **kwargs)


class AskAgain(Predict):
    """Two passes: over the first `share` of every prompt, as a question alone, then over the whole prompts."""

    def __init__(self, workload: Workload, batch_tokens: int, share: float, remembers: bool) -> None:
        super().__init__(workload, batch_tokens)
        self.remembers = remembers
        self.questions = [
            replace(one, token_ids=one.token_ids[: int(share * len(one.token_ids))]) for one in self.prompts
        ]

    def run(self) -> Answers:
        cache = PrefixCache(lambda probs: np.ones(len(probs), dtype=bool)) if self.remembers else None
        for rows in (self.questions, self.prompts):
            found = predict_labels(self.model, LabelSoftmax(), rows, LABELS, self.batch_tokens, prefixes=cache)
        return Answers(found.probs)


def use_one_stream() -> None:
    """Let this process run one batch at a time on the CPU."""
    parallel_batches.max_parallel_batches = lambda *_: 1
