"""Encoding of examples as texts whose hidden states are read: the two answers of a pair apart, or the whole prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.render import Renderer
from nexttoken.types import Example, Message, Swap


@dataclass(frozen=True, slots=True)
class Span:
    """One text: its `token_ids` (T,) int32, of which those from `start` on are read."""

    id: str
    text: str
    token_ids: np.ndarray
    start: int
    was_cut: bool


@dataclass(frozen=True, slots=True)
class EncodedSpans:
    """The spans of all examples, as many of each, and counts of changes."""

    prompts: list[Span]
    num_disarmed: int  # texts in the data that look like special tokens

    def counts(self) -> dict[str, int]:
        return {"num_truncated": sum(span.was_cut for span in self.prompts), "num_disarmed": self.num_disarmed}


@dataclass(frozen=True, slots=True)
class PairTexts:
    """The texts of a pair: what both answers follow, and either answer."""

    context: str
    answers: tuple[str, str]

    @classmethod
    def of(cls, example: Example, swap: Swap) -> "PairTexts":
        """The texts by the sides that end the names of an example's fields."""
        first, second = swap.sides
        texts: dict[str, list[str]] = {first: [], second: [], "": []}
        for name, turns in example.fields.items():
            texts[next((side for side in swap.sides if name.endswith(side)), "")] += turns
        return cls("\n".join(texts[""]), ("\n".join(texts[first]), "\n".join(texts[second])))


class PromptSpans(Renderer):
    """Encodes each example as its prompt, which is read whole."""

    def encode(self, examples: Sequence[Example]) -> EncodedSpans:
        """Raises UserError where a prompt does not fit into `max_tokens`."""
        fitted = list(self.fit_all(examples, [self.max_tokens] * len(examples)))
        spans = [
            Span(example.id, one.text, np.asarray(one.ids, np.int32), 0, one.was_cut)
            for example, one in zip(examples, fitted, strict=True)
        ]
        return EncodedSpans(spans, sum(one.num_disarmed for one in fitted))


class PairSpans(Renderer):
    """Encodes each pair as two spans: an answer and its end, behind the end of its context as a user's message.

    The tokenizer's chat template, or `prompt.chat_template`, sets the context; without one an empty line follows it.
    """

    def __init__(self, tokenizer: Any, prompt: Prompt, swap: Swap, context_tokens: int, answer_tokens: int) -> None:
        is_chat = bool(prompt.chat_template or tokenizer.chat_template)
        super().__init__(tokenizer, replace(prompt, chat=is_chat), context_tokens + answer_tokens)
        self.swap, self.context_tokens, self.answer_tokens = swap, context_tokens, answer_tokens

    def encode(self, examples: Sequence[Example]) -> EncodedSpans:
        clean = [self.disarm(example) for example in examples]
        pairs = [PairTexts.of(example, self.swap) for example, _ in clean]
        opened = [self.opened([Message("user", pair.context)], ()) for pair in pairs]
        if self.chat is None:
            opened = [f"{text}\n\n" for text in opened]
        contexts = [self._end_of(ids) for ids in self.batch_ids(opened)]
        answers = [text for pair in pairs for text in pair.answers]
        answer_ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
        spans = []
        for number, (text, ids) in enumerate(zip(answers, answer_ids, strict=True)):
            row = number // 2
            spans.append(self._span(examples[row].id, opened[row] + text, contexts[row], ids))
        return EncodedSpans(spans, sum(number for _, number in clean))

    def _end_of(self, ids: list[int]) -> list[int]:
        """The last tokens of a context, behind the beginning of sequence that the tokenizer writes."""
        number = len(self.opening)
        return ids if len(ids) <= self.context_tokens else ids[:number] + ids[len(ids) - self.context_tokens + number :]

    def _span(self, name: str, text: str, context: list[int], answer: list[int]) -> Span:
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        ids = [*context, *answer[: self.answer_tokens], *end]
        start = min(len(context), len(ids) - 1)  # an empty answer without an end is read at its context's last token
        was_cut = len(answer) > self.answer_tokens
        return Span(name, text, np.asarray(ids, np.int32), start, was_cut)
