"""Prefix caching between the two passes of a gate: an example's second prompt continues from the first one's KV cache.

The second pass adds passages; if they follow the question, both prompts begin alike.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil  # comes with peft
import torch

from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.prefixes import common_length, is_worth_it

MEMORY_SHARE = 1 / 8  # of the machine's free memory; the caches of a GPU wait there, too


class PrefixCache:
    """Keys and values, up to `num_bytes`, of the rows whose probabilities (N, C) `unsure` marks (N,).

    The probabilities alone decide about the rows to reuse, not the free memory or a resumed prediction. So the batches
    are always the same.
    """

    def __init__(self, unsure: Callable[[np.ndarray], np.ndarray], num_bytes: int | None = None) -> None:
        self.unsure = unsure
        self.free_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available) if num_bytes is None else num_bytes
        self.is_filled = False
        self._tokens: dict[str, list[np.ndarray]] = defaultdict(list)  # of unsure rows, by id
        self._cached: dict[bytes, KeyValues] = {}

    def store(self, batch: Any, probs: np.ndarray) -> None:
        """Copy the keys and values of a batch's unsure rows until one does not fit."""
        last = batch.reads[batch.places[:, 0, 0]].tolist()  # the last token of each prompt
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            tokens, segments = batch.rows[row].token_ids, batch.layout.segments
            size = len(tokens) * sum(part[:, :, :1].nbytes for pair in segments.saved.layers.values() for part in pair)
            if size > self.free_bytes:
                self.free_bytes = 0  # later batches store nothing
                return
            self.free_bytes -= size
            self._cached[tokens.tobytes()] = segments.saved_up_to(last[row]).to(torch.device("cpu"))

    def finish(self, prompts: Sequence[Any], probs: np.ndarray) -> None:
        """End the first pass: later prompts may begin like the unsure ones of these `prompts`."""
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            self._tokens[prompts[row].id].append(prompts[row].token_ids)
        self.is_filled = True

    def common_length(self, prompt: Any, shared: int = 0) -> int:
        """Number of tokens in common with an unsure row of the same id; 0 if reusing them would save too little beyond
        the `shared` tokens that all prompts have in common.
        """
        return self._nearest(prompt, shared)[0]

    def lookup(self, prompt: Any, shared: int = 0) -> KeyValues | None:
        """The cached keys and values of the common tokens, if they were stored."""
        common, tokens = self._nearest(prompt, shared)
        cached = self._cached.get(tokens.tobytes()) if common else None
        return cached and cached.first(common)

    def _nearest(self, prompt: Any, shared: int) -> tuple[int, np.ndarray]:
        """The number of common tokens, 0 if not worth it, and the unsure row that has the most."""
        row = prompt.token_ids
        pairs = [(min(common_length(row, other), len(row) - 1), other) for other in self._tokens.get(prompt.id, ())]
        common, tokens = max(pairs, key=lambda pair: pair[0], default=(0, row))
        return (common, tokens) if is_worth_it(common - shared, 2, len(row) - shared) else (0, tokens)
