"""Rendering of an example as the exact text and token ids that the model continues, cut to a budget of tokens."""

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import named
from nexttoken.prompts.cutting import Fields, cut_sentences, cut_tokens, fit_fields, fit_passages
from nexttoken.prompts.prompt import Prompt
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import PASSAGES, Example, Message

ZERO_WIDTH_SPACE = "\u200b"
ENDS = {"system": "\n\n", "user": "", "assistant": "\n\n"}  # an answer directly follows its question


@dataclass(frozen=True, slots=True)
class Fitted:
    """An over-long example, cut to the budget."""

    text: str
    ids: list[int]
    example: Example  # with its cut fields
    lost_options: bool = False  # options became equal by cutting


class Disarm:
    """Breaks look-alikes of special tokens, such as '</s>', by a zero-width space: data is never a special token."""

    def __init__(self, tokenizer: Any) -> None:
        specials = {str(t) for t in tokenizer.all_special_tokens} | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        self.special = re.compile("|".join(map(re.escape, sorted(filter(None, specials)))) or r"(?!)")

    def __call__(self, example: Example) -> tuple[Example, int]:
        """Return the example without such texts in fields, answer and demonstrations, and their number."""
        count = 0

        def broken(match: re.Match) -> str:
            nonlocal count
            count += 1
            return match[0][0] + ZERO_WIDTH_SPACE + match[0][1:]

        fields = {
            name: tuple(self.special.sub(broken, turn) for turn in turns) for name, turns in example.fields.items()
        }
        answer = None if example.answer is None else self.special.sub(broken, example.answer)
        shown = [self(demonstration) for demonstration in example.demonstrations]
        clean = replace(example, fields=fields, answer=answer, demonstrations=tuple(one for one, _ in shown))
        return clean, count + sum(number for _, number in shown)


class Renderer:
    """Renders and tokenises examples, in the same way for training and prediction."""

    def __init__(self, tokenizer: Any, prompt: Prompt, max_tokens: int) -> None:
        self.chat_template = named(prompt.chat_template) if prompt.chat_template else tokenizer.chat_template
        if prompt.chat and not self.chat_template:
            raise UserError(
                "prompt.chat=true, but this tokenizer has no chat template; name one (prompt.chat_template=gemma or"
                " chatml), or use prompt.chat=false"
            )
        self.tokenizer, self.prompt, self.max_tokens = tokenizer, prompt, max_tokens
        opened, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self._opening = opened[: opened.index(plain[0])]  # beginning-of-sequence, if the tokenizer writes one
        self.disarm = Disarm(tokenizer)

    def text(self, example: Example) -> str:
        """The exact text that the model continues."""
        *messages, cue = self.prompt.render(example)
        return self.opened(messages, self.dialogue_answers(example, messages)) + cue.content

    def dialogue_answers(self, example: Example, messages: Sequence[Message]) -> list[int]:
        """Places of the assistant's earlier utterances in the example's dialogue, without demonstrations."""
        num_answers = len(example.fields.get(self.prompt.dialogue, ())) // 2
        places = [place for place, message in enumerate(messages) if message.role == "assistant"]
        return places[len(places) - num_answers :]

    def opened(self, messages: list[Message], answers: Collection[int]) -> str:
        """Text of `messages` up to where the assistant's next turn begins.

        Without a chat template, each of `answers` (places of messages) ends with end-of-text, as in training.
        """
        if self.prompt.chat:
            return self.chat(messages)
        ends = [(self.end_of_text if place in answers else "") + ENDS[m.role] for place, m in enumerate(messages)]
        return "".join(message.content + end for message, end in zip(messages, ends, strict=True))

    @property
    def end_of_text(self) -> str:
        """The end-of-text token. Raises UserError for a tokenizer without one: generation would never end."""
        if self.tokenizer.eos_token is None:
            raise UserError("this tokenizer has no end-of-text token, so an answer's end cannot be learnt; use another")
        return self.tokenizer.eos_token

    def chat(self, messages: list[Message], opens_answer: bool = True) -> str:
        """Format messages by the chat template; `opens_answer` adds the beginning of the assistant's next turn.

        Thinking is switched off in templates that have it (Qwen3's): the answer itself follows.
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
        """Token ids without offsets and masks, which would take two thirds of the time."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.truncation or backend.padding:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def fit(self, example: Example, limit: int) -> Fitted:
        """Cut an example to `limit` tokens: remove demonstrations, the least similar first, then passages, then earlier
        utterances of a dialogue in pairs; then cut the fields. Raises UserError if even the prompt alone is longer."""
        if shown := example.demonstrations:
            example = replace(example, demonstrations=shown[self._num_removed(example, limit) :])
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

    def _num_removed(self, example: Example, limit: int) -> int:
        """Number of demonstrations to remove, by binary search: each try tokenises the whole prompt."""
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
        """Cut fields until the whole prompt fits; its tokens are counted again, since they merge at joins."""
        fields = {name: turns for name, turns in example.fields.items() if name in self.prompt.shown}
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
            fitted, _ = self.disarm(replace(example, fields={**example.fields, **shorter}))
            ids = self.ids(text := self.text(fitted))
            if len(ids) <= limit:
                return Fitted(text, ids, fitted, lost_options)
            if budget == 0:
                raise UserError(f"row {example.id} does not fit into max_tokens={self.max_tokens}; raise max_tokens")
            budget = max(budget - (len(ids) - limit), 0)

    def _scaffold(self, fields: Fields, num_turns: int) -> int:
        """Tokens of the prompt with empty fields, of at most `num_turns` turns each and every option."""
        empty = {
            name: ("",) * (len(turns) if name == self.prompt.options else min(len(turns), num_turns))
            for name, turns in fields.items()
        }
        return len(self.ids(self.text(Example("", empty))))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _num_different(options: tuple[str, ...]) -> int:
    return len({option.strip() for option in options} - {""})
