"""One example as the exact text and token ids that the model continues, within a budget that never costs the cue."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import named
from nexttoken.prompts.cutting import Fields, cut_sentences, cut_tokens, fit_fields, fit_passages
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.special_tokens import Disarm
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import PASSAGES, Example, Message

ENDS = {"system": "\n\n", "user": "", "assistant": "\n\n"}  # an answer stands directly behind its question


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the model reads of an example that was too long."""

    text: str
    ids: list[int]
    example: Example  # as it is shown
    lost_options: bool = False  # they were cut until some cannot be told apart


class Renderer:
    """Renders and tokenises; the same object (rebuilt from the run folder) serves training and prediction."""

    def __init__(self, tokenizer: Any, prompt: Prompt, max_tokens: int) -> None:
        self.chat_template = named(prompt.chat_template) if prompt.chat_template else tokenizer.chat_template
        if prompt.chat and not self.chat_template:
            raise UserError(
                "prompt.chat=true, but this tokenizer has no chat template; name one (prompt.chat_template=gemma or"
                " chatml), or use prompt.chat=false"
            )
        self.tokenizer, self.prompt, self.max_tokens = tokenizer, prompt, max_tokens
        opened, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self._opening = opened[: opened.index(plain[0])]  # beginning-of-sequence, where the tokenizer writes one
        self.disarm = Disarm(tokenizer)

    def text(self, example: Example) -> str:
        """The exact text that the model continues."""
        *messages, cue = self.prompt.render(example)
        return self.opened(messages, self.own_answers(example, messages)) + cue.content

    def own_answers(self, example: Example, messages: Sequence[Message]) -> list[int]:
        """The places of the assistant's earlier utterances in the example's dialogue, not in demonstrations."""
        num_answers = len(example.fields.get(self.prompt.dialogue, ())) // 2
        places = [place for place, message in enumerate(messages) if message.role == "assistant"]
        return places[len(places) - num_answers :]

    def opened(self, messages: list[Message], answers: Collection[int]) -> str:
        """The text of `messages` up to where the assistant's next turn begins.

        Without a chat template the end of each of `answers` is marked as the model learns to mark it.
        """
        if self.prompt.chat:
            return self.chat(messages)
        ends = [(self.end_of_text if place in answers else "") + ENDS[m.role] for place, m in enumerate(messages)]
        return "".join(message.content + end for message, end in zip(messages, ends, strict=True))

    @property
    def end_of_text(self) -> str:
        """Raises UserError for a tokenizer without one: nothing it writes would ever end."""
        if self.tokenizer.eos_token is None:
            raise UserError("this tokenizer has no end-of-text token, so an answer's end cannot be learnt; use another")
        return self.tokenizer.eos_token

    def chat(self, messages: list[Message], opens_answer: bool = True) -> str:
        """Messages through the chat template, up to where the assistant's next turn begins, or without that.

        A template that can open a thought (Qwen3's) is told not to: the answer itself follows, learnt, read or written.
        """
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=opens_answer,
                chat_template=self.chat_template,
                enable_thinking=False,
            )
        except Exception as error:  # templates raise their own errors, such as 'System role not supported'
            raise UserError(
                f"the chat template refuses this prompt: {error}; try prompt.system='' or prompt.chat=false"
            ) from None

    def ids(self, text: str) -> list[int]:
        """Token ids of a whole text, with at most one beginning-of-sequence token."""
        return self.batch_ids([text])[0]

    def batch_ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self._plain_ids(texts)
        num_opening = len(self._opening)
        return [ids if ids[:num_opening] == self._opening else self._opening + ids for ids in encoded]

    def _plain_ids(self, texts: list[str]) -> list[list[int]]:
        """The tokenizer's own answer, without the offsets and masks that nobody reads: two thirds of its time."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.truncation or backend.padding:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def fit(self, example: Example, limit: int) -> Fitted:
        """Give up what was added first: demonstrations, the least similar first, then passages; then earlier
        utterances of a dialogue, by twos; then cut the fields. Raises UserError where `limit` tokens hold no prompt."""
        if shown := example.demonstrations:
            example = replace(example, demonstrations=shown[self._num_given_up(example, limit) :])
            ids = self.ids(text := self.text(example))
            if len(ids) <= limit:
                return Fitted(text, ids, example)
        without = replace(example, fields={**example.fields, PASSAGES: ()})
        ids = self.ids(text := self.text(without))
        if len(ids) > limit:
            return self._fit_turns(without, limit)
        passages, room, spans = example.fields.get(PASSAGES, ()), limit - len(ids), cache(self._spans)
        while fitting := fit_passages(passages, room, spans):
            fields = {**without.fields, PASSAGES: fitting}
            with_passages, _ = self.disarm(replace(without, fields=fields))
            longer = self.ids(longer_text := self.text(with_passages))
            if len(longer) <= limit:
                return Fitted(longer_text, longer, with_passages)
            room -= len(longer) - limit
        return Fitted(text, ids, without)

    def _num_given_up(self, example: Example, limit: int) -> int:
        """How many demonstrations have to go, found by halving: twenty would be tokenised twenty times, one by one."""
        shown = example.demonstrations

        def fits(number: int) -> bool:
            fewer = replace(example, demonstrations=shown[number:])
            return len(self.ids(self.text(fewer))) <= limit

        return bisect_left(range(len(shown)), True, lo=1, key=fits)

    def _fit_turns(self, example: Example, limit: int) -> Fitted:
        name, prefix = self.prompt.dialogue, example.tags.get(PREFIX, "")
        while name and len(example.fields[name]) > 2:
            _, _, opening, *further = example.fields[name]
            example = replace(example, fields={**example.fields, name: (prefix + opening, *further)})
            ids = self.ids(text := self.text(example))
            if len(ids) <= limit:
                return Fitted(text, ids, example)
        return self._fit_fields(example, limit)

    def _fit_fields(self, example: Example, limit: int) -> Fitted:
        """Cut fields until the whole prompt fits; tokens merge at joins, so the result is measured, not guessed."""
        fields = {name: turns for name, turns in example.fields.items() if name in self.prompt.shown}
        shorten, lost_options = cut_sentences if self.prompt.cut_sentences else cut_tokens, False
        scaffold = self._scaffold(fields, 1)
        if scaffold > limit:
            raise UserError(
                f"max_tokens={self.max_tokens} does not hold the prompt without its fields ({scaffold} tokens and the"
                f" answer); raise max_tokens to {scaffold + self.max_tokens - limit} or more"
            )
        budget, turn_tokens = limit - scaffold, self._scaffold(fields, 2) - scaffold
        spans = cache(self._spans)  # tokenising is slow where texts are very long: once is enough
        while True:
            shorter = fit_fields(fields, budget, spans, self.prompt.cut_at, turn_tokens, self.prompt.options, shorten)
            own, kept = (some.get(self.prompt.options, ()) for some in (fields, shorter))
            lost_options = lost_options or _num_different(kept) < _num_different(own)
            fitted, _ = self.disarm(replace(example, fields={**example.fields, **shorter}))
            ids = self.ids(text := self.text(fitted))
            if len(ids) <= limit:
                return Fitted(text, ids, fitted, lost_options)
            if budget == 0:
                raise UserError(f"row {example.id} does not fit into max_tokens={self.max_tokens}; raise max_tokens")
            budget = max(budget - (len(ids) - limit), 0)

    def _scaffold(self, fields: Fields, num_turns: int) -> int:
        """Tokens of the prompt around at most `num_turns` empty turns, and every option."""
        empty = {
            name: ("",) * (len(turns) if name == self.prompt.options else min(len(turns), num_turns))
            for name, turns in fields.items()
        }
        return len(self.ids(self.text(Example("", empty))))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _num_different(options: tuple[str, ...]) -> int:
    return len({option.strip() for option in options} - {""})
