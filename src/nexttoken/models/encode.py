"""Examples to token ids within a budget: texts are cut, never the answer cue; data is never a special token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from nexttoken.cutting import Fields, fit_fields, fit_passages
from nexttoken.errors import UserError, first_five
from nexttoken.models.disarm import Disarm
from nexttoken.models.labels import LabelTokens, find_label_tokens
from nexttoken.progress import Progress
from nexttoken.prompts import Prompt
from nexttoken.types import PASSAGES, Example, Message

TAIL = 3  # tokens before the answer that decide how a label is written after them


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What the model reads for one example: `token_ids` (T,) int32 ends where the answer begins."""

    id: str
    label: int | None
    text: str
    token_ids: np.ndarray
    was_cut: bool
    num_options: int | None = None
    round: int = 0  # rounds of an id take turns in training, one an epoch


@dataclass(frozen=True, slots=True)
class Encoded:
    """All prompts of a split with the label tokens they share and what was changed to make them."""

    prompts: list[EncodedPrompt]
    labels: LabelTokens
    num_disarmed: int  # special-token look-alikes in the data that were kept as text

    def counts(self) -> dict[str, int]:
        return {"num_truncated": sum(p.was_cut for p in self.prompts), "num_disarmed": self.num_disarmed}


class Encoder:
    """Renders and tokenises examples; the same object (rebuilt from the run folder) serves training and prediction."""

    def __init__(self, tokenizer: Any, prompt: Prompt, max_tokens: int) -> None:
        if prompt.chat and not tokenizer.chat_template:
            raise UserError("prompt.chat=true, but this tokenizer has no chat template; use prompt.chat=false")
        self.tokenizer, self.prompt, self.max_tokens = tokenizer, prompt, max_tokens
        opened, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self._opening = opened[: opened.index(plain[0])]  # beginning-of-sequence, where the tokenizer writes one
        self._disarm = Disarm(tokenizer)

    def encode(self, examples: Sequence[Example], expected: LabelTokens | None = None, chunk: int = 512) -> Encoded:
        """Tokenise every example once (over-long ones again after cutting); finds the label tokens on the way.

        Raises UserError when the budget does not even hold the prompt without its fields, or when the label tokens
        are not the `expected` ones, those that the model was trained with.
        """
        prompts: list[EncodedPrompt] = []
        num_disarmed = 0
        self._alike: list[str] = []  # rows whose options were cut until some cannot be told apart
        with Progress(len(examples), "tokenise") as progress:
            for start in range(0, len(examples), chunk):
                part = examples[start : start + chunk]
                clean = [self._disarm(example) for example in part]
                num_disarmed += sum(count for _, count in clean)
                prompts += self._encode_chunk([example for example, _ in clean])
                progress.advance(len(part))
        self._report_alike(len(prompts))
        labels = self._labels(prompts)
        if expected is not None and labels != expected:
            raise UserError(
                f"the label tokens differ from the run's:\n{labels.table()}\nwhere the run has\n{expected.table()}"
            )
        if labels.num_rejoined:
            prompts = [replace(p, token_ids=p.token_ids[: -labels.num_rejoined]) for p in prompts]
        return Encoded(prompts, labels, num_disarmed)

    def _report_alike(self, num_rows: int) -> None:
        """Raises UserError where most rows have lost their options; a few are counted, and answered all the same."""
        alike = list(dict.fromkeys(self._alike))
        line = f"max_tokens={self.max_tokens} leaves too little of the options to tell them apart"
        if 2 * len(alike) > num_rows:
            raise UserError(f"{line} in {len(alike)} of {num_rows} rows ({first_five(alike)}); raise max_tokens")
        if alike:
            print(f"{line} in {len(alike)} of {num_rows} rows ({first_five(alike)})")

    def text(self, example: Example) -> str:
        """The exact text that the model continues."""
        *messages, cue = self.prompt.render(example)
        if self.prompt.chat:
            return self._chat(messages) + cue.content
        ends = {"system": "\n\n", "user": "", "assistant": "\n\n"}  # an answer stands directly behind its question
        return "".join(m.content + ends[m.role] for m in messages) + cue.content

    def _chat(self, messages: list[Message]) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise their own errors, such as 'System role not supported'
            raise UserError(
                f"the chat template refuses this prompt: {error}; try prompt.system='' or prompt.chat=false"
            ) from None

    def ids(self, text: str) -> list[int]:
        """Token ids of a whole text, with at most one beginning-of-sequence token."""
        return self._batch_ids([text])[0]

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        num_opening = len(self._opening)
        return [ids if ids[:num_opening] == self._opening else self._opening + ids for ids in encoded]

    def _encode_chunk(self, examples: Sequence[Example]) -> Iterator[EncodedPrompt]:
        texts = [self.text(example) for example in examples]
        for example, text, ids in zip(examples, texts, self._batch_ids(texts), strict=True):
            was_cut = len(ids) > self._limit
            if was_cut:
                text, ids = self._fit(example)
            token_ids = np.asarray(ids, dtype=np.int32)
            own = (example.num_options, example.round)
            yield EncodedPrompt(example.id, example.label, text, token_ids, was_cut, *own)

    @cached_property
    def _reserve(self) -> int:
        """Tokens kept free for the longest label, counted after the answer cue."""
        cue = self.prompt.answer_cue
        return max(len(self.ids(cue + label)) for label in self.prompt.labels) - len(self.ids(cue))

    @property
    def _limit(self) -> int:
        """Tokens of the longest prompt."""
        return self.max_tokens - self._reserve

    def _fit(self, example: Example) -> tuple[str, list[int]]:
        """Give up what was added first: demonstrations, the least similar first, then passages; then cut the fields."""
        while example.demonstrations:
            example = replace(example, demonstrations=example.demonstrations[1:])
            ids = self.ids(text := self.text(example))
            if len(ids) <= self._limit:
                return text, ids
        without = replace(example, fields={**example.fields, PASSAGES: ()})
        ids = self.ids(text := self.text(without))
        if len(ids) > self._limit:
            return self._fit_fields(example.id, without.fields)
        passages, room, spans = example.fields.get(PASSAGES, ()), self._limit - len(ids), cache(self._spans)
        while fitting := fit_passages(passages, room, spans):
            fields = {**without.fields, PASSAGES: fitting}
            with_passages, _ = self._disarm(replace(without, fields=fields))
            longer = self.ids(longer_text := self.text(with_passages))
            if len(longer) <= self._limit:
                return longer_text, longer
            room -= len(longer) - self._limit
        return text, ids

    def _fit_fields(self, example_id: str, fields: Fields) -> tuple[str, list[int]]:
        """Cut fields until the whole prompt fits; tokens merge at joins, so the result is measured, not guessed."""
        scaffold = self._scaffold(fields, 1)
        if scaffold > self._limit:
            raise UserError(
                f"max_tokens={self.max_tokens} does not hold the prompt without its fields ({scaffold} tokens and the"
                f" answer); raise max_tokens to {scaffold + self._reserve} or more"
            )
        budget, turn_tokens = self._limit - scaffold, self._scaffold(fields, 2) - scaffold
        spans = cache(self._spans)  # tokenising is slow where texts are very long: once is enough
        while True:
            shorter = fit_fields(fields, budget, spans, self.prompt.cut_at, turn_tokens, self.prompt.options)
            own, kept = (some.get(self.prompt.options, ()) for some in (fields, shorter))
            if _num_different(kept) < _num_different(own):
                self._alike.append(example_id)
            fitted, _ = self._disarm(Example(example_id, shorter))
            ids = self.ids(text := self.text(fitted))
            if len(ids) <= self._limit:
                return text, ids
            if budget == 0:
                raise UserError(f"row {example_id} does not fit into max_tokens={self.max_tokens}; raise max_tokens")
            budget = max(budget - (len(ids) - self._limit), 0)

    def _scaffold(self, fields: Fields, num_turns: int) -> int:
        """Tokens of the prompt around at most `num_turns` empty turns, and every option."""
        empty = {
            name: ("",) * (len(turns) if name == self.prompt.options else min(len(turns), num_turns))
            for name, turns in fields.items()
        }
        return len(self.ids(self.text(Example("", empty))))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def _labels(self, prompts: list[EncodedPrompt]) -> LabelTokens:
        """Audit the labels once for every different end of a prompt: the tokens before the answer decide theirs."""
        by_tail = {tuple(p.token_ids[-TAIL:].tolist()): p.text for p in prompts}
        return find_label_tokens(
            by_tail.values(),
            self.prompt.labels,
            self.ids,
            self.tokenizer.convert_ids_to_tokens,
            self.tokenizer.unk_token_id,
        )


def _num_different(options: Sequence[str]) -> int:
    return len({option.strip() for option in options} - {""})
