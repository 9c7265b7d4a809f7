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

MOST = 4000  # rows whose lengths are looked at, evenly spread over the file
FEWEST = 100  # test rows from which their lengths are those of a hidden test; Kaggle shows three
BYTES_PER_TOKEN = 4.0  # for a run whose tokenizer is unknown here


@dataclass(frozen=True)
class RowSource:
    """Examples whose lengths stand for those to predict, and the number of rows in the test file (0: unknown).

    `reading` (2,) are the seconds that reading the file took, by both `clocks`, and `row_seconds` (2,) those of a row.
    """

    examples: list[Example]
    split: str
    num_test: int
    reading: np.ndarray
    row_seconds: np.ndarray

    @classmethod
    def of(cls, parts: Any) -> "RowSource":
        """The test rows of a run's task, or its training rows where the test file has few or is not there."""
        start = clocks()
        try:
            test = apply_transforms(parts.task.read("test"), parts.transforms)
        except UserError:
            test = []
        if len(test) >= FEWEST:
            return cls.timed(test, "test", len(test), start)
        start = clocks()
        return cls.timed(apply_transforms(parts.task.read("train"), parts.transforms), "train", len(test), start)

    @classmethod
    def timed(cls, examples: list[Example], split: str, num_test: int, start: np.ndarray) -> "RowSource":
        """At most MOST of the examples, whose reading began at `start`."""
        reading, step = clocks() - start, -(-len(examples) // MOST)
        return cls(examples[::step], split, num_test, reading, reading / len(examples))


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


def spread(tokens: np.ndarray, number: int) -> list[int]:
    """`number` places in the order of length at equal distances; beyond all rows, places come again."""
    order = np.argsort(tokens, kind="stable").tolist()
    if number >= len(order):
        return list(islice(cycle(order), number))
    return [order[int((place + 0.5) * len(order) / number)] for place in range(number)]


def reworded(example: Example, turn: int) -> Example:
    """The example with two words of each text in each other's place: of the same length, and new to every cache."""
    fields = {name: tuple(_exchanged(text, turn) for text in texts) for name, texts in example.fields.items()}
    return replace(example, id=f"{example.id} {turn}", fields=fields)


def _exchanged(text: str, turn: int) -> str:
    words = text.split(" ")
    if (inner := len(words) - 2) > 1:  # first and last words have other tokens than those between spaces
        one = turn % inner
        other = (one + 1 + turn // inner % (inner - 1)) % inner
        words[one + 1], words[other + 1] = words[other + 1], words[one + 1]
        return " ".join(words)
    return " ".join(reversed(words))
