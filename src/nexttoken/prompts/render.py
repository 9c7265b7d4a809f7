"""Rendering of examples as the exact texts and token ids that the model continues, cut to a budget of tokens."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import choose_template
from nexttoken.prompts.cutting import Fields, cut_sentences, cut_tokens, fit_fields, fit_passages
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.special_tokens import Disarm
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import PASSAGES, Example, Message

ENDS = {"system": "\n\n", "user": "", "assistant": "\n\n"}  # an answer directly follows its question


@dataclass(frozen=True, slots=True)
class Fitted:
    """A rendered example, cut to the budget if it was too long."""

    text: str
    ids: list[int]
    example: Example  # with its cut fields
    lost_options: bool = False  # options became equal by cutting
    was_cut: bool = False
    num_disarmed: int = 0


class Renderer:
    """Renders and tokenises examples, in the same way for training and prediction."""

    def __init__(self, tokenizer: Any, prompt: Prompt, max_tokens: int) -> None:
        self.chat = choose_template(prompt.chat_template, tokenizer) if prompt.chat else None
        self.tokenizer, self.prompt, self.max_tokens = tokenizer, prompt, max_tokens
        opened, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self.opening = opened[: opened.index(plain[0])]  # beginning-of-sequence, if the tokenizer writes one
        self.disarm = Disarm(tokenizer, self.chat.texts if self.chat else ())

    def text(self, example: Example) -> str:
        """Return the exact text that the model continues."""
        *messages, cue = self.prompt.render(example)
        return self.opened(messages, self.dialogue_answers(example, messages)) + cue.content

    def dialogue_answers(self, example: Example, messages: Sequence[Message]) -> list[int]:
        """Positions of the assistant's messages in the example's own dialogue, without demonstrations."""
        num_answers = len(example.fields.get(self.prompt.dialogue, ())) // 2
        places = [place for place, message in enumerate(messages) if message.role == "assistant"]
        return places[len(places) - num_answers :]

    def opened(self, messages: list[Message], answers: Collection[int]) -> str:
        """Return the text of `messages` up to the start of the assistant's next turn.

        Without a chat template, each of `answers` (positions of messages) ends with end-of-text, as in training.
        """
        if self.chat:
            return self.chat(messages)
        ends = [(self.end_of_text if place in answers else "") + ENDS[m.role] for place, m in enumerate(messages)]
        return "".join(message.content + end for message, end in zip(messages, ends, strict=True))

    @property
    def end_of_text(self) -> str:
        """End-of-text token. Raises UserError for a tokenizer without one: generation would never end."""
        if self.tokenizer.eos_token is None:
            raise UserError("this tokenizer has no end-of-text token, so an answer's end cannot be learnt; use another")
        return self.tokenizer.eos_token

    def ids(self, text: str) -> list[int]:
        """Token ids of a whole text, with at most one beginning-of-sequence token."""
        return self.batch_ids([text])[0]

    def batch_ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of whole texts, without offsets and masks, which would take two thirds of the time."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.truncation or backend.padding:
            encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        else:
            encoded = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        num_opening = len(self.opening)
        return [ids if ids[:num_opening] == self.opening else self.opening + ids for ids in encoded]

    def fit_all(self, examples: Sequence[Example], limits: Sequence[int]) -> Iterator[Fitted]:
        """Disarm and render the examples, tokenise them together, and cut those of more tokens than their limit."""
        clean = [self.disarm(example) for example in examples]
        texts = [self.text(example) for example, _ in clean]
        for (example, num_disarmed), text, ids, limit in zip(clean, texts, self.batch_ids(texts), limits, strict=True):
            if len(ids) > limit:
                yield replace(self.fit(example, limit), was_cut=True, num_disarmed=num_disarmed)
            else:
                yield Fitted(text, ids, example, num_disarmed=num_disarmed)

    def fit(self, example: Example, limit: int) -> Fitted:
        """Cut an example to `limit` tokens: remove demonstrations, the least similar first, then passages, then earlier
        utterances of a dialogue in pairs; then cut the fields. Raises UserError if the prompt alone is longer."""
        if shown := example.demonstrations:  # binary search, as each try tokenises the whole prompt

            def without_first(number: int) -> Fitted:
                return self._render(replace(example, demonstrations=shown[number:]))

            def fits(number: int) -> bool:
                return len(without_first(number).ids) <= limit

            fitted = without_first(bisect_left(range(len(shown)), True, lo=1, key=fits))
            if len(fitted.ids) <= limit:
                return fitted
            example = fitted.example
        fitted = self._render(replace(example, fields={**example.fields, PASSAGES: ()}))
        if len(fitted.ids) > limit:
            return self._fit_turns(fitted.example, limit)
        passages, budget, spans = example.fields.get(PASSAGES, ()), limit - len(fitted.ids), cache(self._spans)
        while fitting := fit_passages(passages, budget, spans):
            fields = {**example.fields, PASSAGES: fitting}
            longer = self._render(self.disarm(replace(example, fields=fields))[0])
            if len(longer.ids) <= limit:
                return longer
            budget -= len(longer.ids) - limit
        return fitted

    def _render(self, example: Example) -> Fitted:
        text = self.text(example)
        return Fitted(text, self.ids(text), example)

    def _fit_turns(self, example: Example, limit: int) -> Fitted:
        name, prefix = self.prompt.dialogue, example.tags.get(PREFIX, "")
        while name and len(example.fields[name]) > 2:
            _, _, opening, *further = example.fields[name]
            example = replace(example, fields={**example.fields, name: (prefix + opening, *further)})
            if len((fitted := self._render(self.disarm(example)[0])).ids) <= limit:
                return fitted
        return self._fit_fields(example, limit)

    def _fit_fields(self, example: Example, limit: int) -> Fitted:
        """Cut fields until the whole prompt fits; its tokens are counted again, as tokens change at joins."""
        shown = self.prompt.shown(example.fields)
        fields = {name: turns for name, turns in example.fields.items() if name in shown}
        shorten, lost_options = cut_sentences if self.prompt.cut_sentences else cut_tokens, False
        scaffold = self._scaffold(fields, 1)
        if scaffold > limit:
            raise UserError(
                f"max_tokens={self.max_tokens} does not hold the prompt without its fields ({scaffold} tokens and the"
                f" answer); raise max_tokens to {scaffold + self.max_tokens - limit} or more"
            )
        budget, turn_tokens = limit - scaffold, self._scaffold(fields, 2) - scaffold
        spans = cache(self._spans)  # very long texts are slow to tokenise
        while True:
            shorter = fit_fields(fields, budget, spans, self.prompt.cut_at, turn_tokens, self.prompt.options, shorten)
            before, after = (some.get(self.prompt.options, ()) for some in (fields, shorter))
            lost_options = lost_options or _num_different(after) < _num_different(before)
            fitted = self._render(self.disarm(replace(example, fields={**example.fields, **shorter}))[0])
            if len(fitted.ids) <= limit:
                return replace(fitted, lost_options=lost_options)
            if budget == 0:
                raise UserError(f"row {example.id} does not fit into max_tokens={self.max_tokens}; raise max_tokens")
            budget = max(budget - (len(fitted.ids) - limit), 0)

    def _scaffold(self, fields: Fields, num_turns: int) -> int:
        """Number of tokens of the prompt with empty fields of at most `num_turns` turns, and all options empty."""
        empty = {
            name: ("",) * (len(turns) if name == self.prompt.options else min(len(turns), num_turns))
            for name, turns in fields.items()
        }
        return len(self.ids(self.text(Example("", empty))))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _num_different(options: tuple[str, ...]) -> int:
    return len({option.strip() for option in options} - {""})
