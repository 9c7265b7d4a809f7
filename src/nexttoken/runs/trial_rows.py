"""Rows for a timed trial of a run: of all lengths, and in words that no cache knows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example

FEWEST = 100  # test rows from which their lengths are those of a hidden test; Kaggle shows three
BYTES_PER_TOKEN = 4.0  # for a run whose tokenizer is unknown here


@dataclass(frozen=True)
class RowSource:
    """Examples whose lengths stand for those to predict, and the number of rows in the test file (0: unknown).

    `reading` (2,) are the seconds that reading them took, by both `clocks`.
    """

    examples: list[Example]
    split: str
    num_test: int
    reading: np.ndarray

    @classmethod
    def of(cls, parts: Any) -> "RowSource":
        """The test rows of a run's task, or its training rows where the test file has few or is not there."""
        start = clocks()
        try:
            test = apply_transforms(parts.task.read("test"), parts.transforms)
        except UserError:
            test = []
        if len(test) >= FEWEST:
            return cls(test, "test", len(test), clocks() - start)
        start = clocks()
        return cls(apply_transforms(parts.task.read("train"), parts.transforms), "train", len(test), clocks() - start)

    @property
    def row_seconds(self) -> np.ndarray:
        return self.reading / max(len(self.examples), 1)


def clocks() -> np.ndarray:
    """Seconds, and seconds of processor time (2,), to be subtracted from later ones."""
    return np.array([time.perf_counter(), time.process_time()])


def text_of(example: Example) -> str:
    return "\n".join(turn for turns in example.fields.values() for turn in turns)


def count_tokens(examples: Sequence[Example], tokenizer: Any, max_tokens: int) -> np.ndarray:
    """Tokens of each example's own texts (N,) up to the budget, without the prompt around them."""
    texts = list(map(text_of, examples))
    if tokenizer is None:
        lengths = [len(text.encode(errors="replace")) / BYTES_PER_TOKEN for text in texts]
    else:
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return np.minimum(np.array(lengths, dtype=float), max_tokens)


def spread(tokens: np.ndarray, number: int, offset: float = 0.5) -> list[int]:
    """`number` places in the order of length at equal distances; beyond all rows, places come again."""
    order = np.argsort(tokens, kind="stable").tolist()
    if number >= len(order):
        return list(islice(cycle(order), number))
    return [order[int((place + offset) * len(order) / number)] for place in range(number)]


def reworded(example: Example, turn: int) -> Example:
    """The example with the words of each text rotated: as long, and new to every cache."""
    fields = {name: tuple(_rotated(text, turn) for text in texts) for name, texts in example.fields.items()}
    return replace(example, id=f"{example.id} {turn}", fields=fields)


def _rotated(text: str, turn: int) -> str:
    words = text.split(" ")
    start = turn % len(words)
    return " ".join(words[start:] + words[:start])
