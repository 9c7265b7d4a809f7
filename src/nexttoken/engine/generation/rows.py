"""What goes into an engine and what comes out of it, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nexttoken.settings import GenerationSettings


@dataclass(frozen=True, slots=True)
class GenerationPrompt:
    """What is continued for one example: `token_ids` (T,) int32 ends where the answer begins."""

    id: str
    token_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to one prompt.

    `text` has no special tokens, no stop text and no white space around it. `num_tokens` counts what was written before
    the end token; the tokens of a stop text are among them. `finished` is False where the longest length ended it.
    `seconds` are its share of the batch that it was written in.
    """

    id: str
    text: str
    num_tokens: int
    finished: bool
    seconds: float


class Generator(Protocol):
    """An engine that continues prompts."""

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[Written]:
        """Yield every prompt's answer as soon as it is there, in any order."""
        ...
