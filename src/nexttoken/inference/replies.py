"""Dialogues asked for every answer of the assistant, each with the same few utterances before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nexttoken.errors import UserError
from nexttoken.inference.once import Answerer, Inference
from nexttoken.transforms.dialogue import replies
from nexttoken.types import Example


@dataclass(frozen=True)
class Replies(Inference):
    """Each of the assistant's utterances once, as the last of a window of at most `num_utterances`.

    What a variant was trained on does not change how it is asked, so that variants can be compared.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts", "dialogues"})

    num_utterances: int = 4

    def __post_init__(self) -> None:
        if self.num_utterances < 2 or self.num_utterances % 2:
            raise UserError(f"inference.num_utterances={self.num_utterances}: expected an even number of at least 2")

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> object:
        return answer(replies(examples, self.num_utterances))

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return replies(examples, self.num_utterances)
