"""Class probabilities of examples by a probe: the states of their texts, and the regression on them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nexttoken.engine.label_answerer import ModelAnswerer
from nexttoken.engine.probe import FittedProbe, Probe, Rows
from nexttoken.prompts.encode_spans import PairSpans, PromptSpans
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.types import Example, LabelPredictions


class ProbeAnswerer(ModelAnswerer):
    """Examples in, class probabilities out; `probe` is fitted by training, or read from a fold."""

    probe: FittedProbe

    def __init__(
        self, model: nn.Module, head: Probe, encoder: PairSpans | PromptSpans, batch_tokens: int, made_by: str
    ) -> None:
        super().__init__(model, encoder, NO_LABELS, batch_tokens)
        self.head, self.made_by = head, made_by

    def load_probe(self, fold_dir: Path) -> "ProbeAnswerer":
        """Take the probe of a finished fold. Raises UserError as `FittedProbe.load`."""
        self.probe = FittedProbe.load(fold_dir, self.head)
        return self

    def rows(self, examples: Sequence[Example]) -> Rows:
        """The examples as a probe sees them; states that are not in the cache are read by the model."""
        spans = self.collect(self.encoder.encode(examples))
        signed, shared = self.head.numbers(examples)
        if not spans:
            return Rows(np.zeros((0, 1, 1), np.float32), signed, shared)
        states: Any = self.head.reader(self.model, self.batch_tokens, self.made_by)(spans)
        return Rows(states.reshape(len(examples), len(spans) // len(examples), -1), signed, shared)

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        start = time.perf_counter()
        probs = self.probe.predict(self.rows(examples), [example.num_options for example in examples])
        seconds = (time.perf_counter() - start) / max(1, len(examples))
        ids = tuple(example.id for example in examples)
        return LabelPredictions(ids, probs, {"seconds": np.full(len(ids), seconds)})
