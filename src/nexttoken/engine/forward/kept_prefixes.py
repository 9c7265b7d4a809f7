"""Rows that will be asked about again with more behind them: what was read of them is kept, and read on from.

A gate's second pass begins with the question that its first pass has read, if the prompt has the passages behind it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil  # comes with peft
import torch

from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.prefixes import common_length, is_worth_it

SHARE = 1 / 8  # of the machine's free memory, where the keys and values wait, also those of a GPU


class Read:
    """Keys and values of rows whose probabilities (N, C) `unsure` marks (N,), as many as `num_bytes` hold.

    What the next rows begin with follows from the probabilities alone, not from what there was room for or what a
    killed prediction had read: so their batches are the same ones.
    """

    def __init__(self, unsure: Callable[[np.ndarray], np.ndarray], num_bytes: int | None = None) -> None:
        self.unsure = unsure
        self.room = int(SHARE * psutil.virtual_memory().available) if num_bytes is None else num_bytes
        self.is_filled = False
        self._tokens: dict[str, list[np.ndarray]] = defaultdict(list)
        self._kept: dict[bytes, KeyValues] = {}

    def keep(self, batch: Any, probs: np.ndarray) -> None:
        """Copy what a batch has kept of its unsure rows, until there is no room for one."""
        ends = batch.reads[batch.places[:, 0, 0]].tolist()  # the last token of each prompt
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            tokens = batch.rows[row].token_ids
            size = len(tokens) * _bytes_per_token(batch.layout.segments.kept)
            if size > self.room:
                self.room = 0  # no more batches need to keep anything
                return
            self.room -= size
            self._kept[tokens.tobytes()] = batch.layout.segments.read_to(ends[row]).to(torch.device("cpu"))

    def fill(self, prompts: Sequence[Any], probs: np.ndarray) -> None:
        """All rows have been asked; those that are unsure may come again."""
        for row in np.flatnonzero(self.unsure(probs)).tolist():
            self._tokens[prompts[row].id].append(prompts[row].token_ids)
        self.is_filled = True

    def common(self, prompt: Any, shared: int = 0) -> int:
        """Tokens that a prompt begins with as a row of the same id did, 0 where it is not worth it: where it saves
        little beyond the `shared` ones that all prompts begin with.
        """
        return self._nearest(prompt, shared)[0]

    def find(self, prompt: Any, shared: int = 0) -> KeyValues | None:
        """What has been kept of these tokens."""
        common, tokens = self._nearest(prompt, shared)
        kept = self._kept.get(tokens.tobytes()) if common else None
        return kept and kept.first(common)

    def _nearest(self, prompt: Any, shared: int) -> tuple[int, np.ndarray]:
        row = prompt.token_ids
        found = [(min(common_length(row, one), len(row) - 1), one) for one in self._tokens.get(prompt.id, ())]
        common, tokens = max(found, key=lambda pair: pair[0], default=(0, row))
        return (common, tokens) if is_worth_it(common - shared, 2, len(row) - shared) else (0, tokens)


def _bytes_per_token(kept: KeyValues) -> int:
    return sum(part[:, :, :1].nbytes for pair in kept.layers.values() for part in pair)
