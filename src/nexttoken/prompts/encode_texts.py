"""Encoding of examples with open answers: token ids, and a mask of the tokens that are learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.prompts.cutting import kept_share
from nexttoken.prompts.encoded import EncodedText, EncodedTexts
from nexttoken.prompts.render import Renderer
from nexttoken.prompts.token_cache import CHUNK, token_rows
from nexttoken.prompts.token_file import TokenRow
from nexttoken.types import Example, Message

JOIN = 24  # characters before a segment, which decide how its first token is written


class TextEncoder(Renderer):
    """Encodes prompts with their answers; the ids of a prompt are the same as in generation.

    An answer is tokenised after its prompt and never merged with it. Its end mark (the chat template's, else
    end-of-text) is learnt, too.
    """

    def encode(
        self, examples: Sequence[Example], *, learns_dialogue: bool = False, keeps_all: bool = True, chunk: int = CHUNK
    ) -> EncodedTexts:
        """Tokenise every example with its answer; `learns_dialogue` also learns the assistant's earlier utterances.

        An answer longer than the budget loses its end with `keeps_all`. Otherwise its example is left out, as the model
        would learn not to stop. Raises UserError for an example without an answer, or if no example is left.
        """
        make = partial(self._make, learns_dialogue=learns_dialogue)
        made = token_rows(self, examples, make, f"learns_dialogue={learns_dialogue}", chunk)
        rows = [_encoded(*pair, self.tokenizer) for pair in zip(examples, made, strict=True)]
        left_out = [row.id for row in rows if row.answer_cut and not keeps_all]
        rows = [row for row in rows if keeps_all or not row.answer_cut]
        if left_out:
            print(
                f"{len(left_out)} of {len(examples)} rows are left out: their answers alone are longer than"
                f" max_tokens={self.max_tokens} ({first_five(left_out)})"
            )
        if not rows:
            raise UserError(f"no row's answer fits into max_tokens={self.max_tokens}; raise max_tokens")
        return EncodedTexts(rows, sum(row.num_disarmed for row in made), tuple(left_out))

    def for_training(self, examples: Sequence[Example]) -> EncodedTexts:
        """Encode training examples: all of the assistant's utterances are learnt, answers without an end left out."""
        return self.encode(examples, learns_dialogue=True, keeps_all=False)

    def for_choosing(self, examples: Sequence[Example], train: EncodedTexts) -> EncodedTexts:
        """Encode the examples by which checkpoints are chosen."""
        return self.encode(examples)

    def encode_prompts(self, examples: Sequence[Example], reserve: int) -> EncodedTexts:
        """Tokenise the prompts of examples, with `reserve` tokens left for the answers.

        Raises UserError if that leaves no tokens for a prompt.
        """
        if reserve >= self.max_tokens:
            raise UserError(
                f"generation.max_new_tokens={reserve} leaves nothing of max_tokens={self.max_tokens} for a prompt;"
                " lower it, or train with a higher max_tokens (at most the model's context)"
            )
        fitted, rows = list(self.fit_all(examples, [self.max_tokens - reserve] * len(examples))), []
        for example, row in zip(examples, fitted, strict=True):
            share_cut = _share_cut(self.disarm(example)[0], row.example) if row.was_cut else 0.0
            arrays = np.asarray(row.ids, np.int32), np.zeros(len(row.ids), bool)
            rows.append(EncodedText(example.id, row.text, *arrays, row.was_cut, share_cut))
        return EncodedTexts(rows, sum(row.num_disarmed for row in fitted))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer: end-of-text, and the chat template's end mark."""
        marks = [token for token in self._ids_alone(self._end_mark) if token in self.disarm.ids]
        return tuple(dict.fromkeys(end for end in (self.tokenizer.eos_token_id, *marks[:1]) if end is not None))

    def _ids_alone(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @cached_property
    def _end_mark(self) -> str:
        """Text after an answer. Raises UserError if the chat template's mark is no token of this tokenizer: the model
        would learn to write it as text into every answer."""
        if self.chat is None:
            return self.end_of_text
        mark = self.chat.end_mark
        if mark.strip() and self.disarm.ids.isdisjoint(self._ids_alone(mark)):
            raise UserError(
                f"the chat template ends an answer with {mark.strip()!r}, which is no token of this tokenizer and would"
                " be written as text; use prompt.chat_template=alpaca or prompt.chat=false"
            )
        return mark

    def _make(self, examples: Sequence[Example], learns_dialogue: bool) -> Iterator[TokenRow]:
        clean = [self.disarm(example) for example in examples]
        for (example, num_disarmed), pieces in zip(clean, self._pieces([one for one, _ in clean]), strict=True):
            yield replace(self._row(example, pieces, learns_dialogue), num_disarmed=num_disarmed)

    def _row(self, example: Example, pieces: list[list[int]], learns_dialogue: bool) -> TokenRow:
        """Join the pieces; if they exceed the budget, cut the prompt to the tokens that the answer leaves."""
        shown, was_cut = example, sum(map(len, pieces)) > self.max_tokens
        if was_cut:
            answer = pieces[-1]
            try:
                shown = self.fit(example, self.max_tokens - len(answer)).example
                pieces = next(iter(self._pieces([shown])))
            except UserError:
                pieces = [self._shortest_prompt(example), answer]
        pieces[-1] = pieces[-1][: self._num_learnt(pieces[-1])]
        ids = [token for piece in pieces for token in piece][: self.max_tokens]
        learnt = np.zeros(len(ids), dtype=bool)
        for place in _learnt_places(example, len(pieces)) if learns_dialogue else [len(pieces) - 1]:
            start = sum(map(len, pieces[:place]))
            learnt[start : start + self._num_learnt(pieces[place])] = True
        answer_cut = sum(map(len, pieces)) > self.max_tokens
        return TokenRow(np.asarray(ids, np.int32), "", learnt, was_cut, answer_cut, _share_cut(example, shown))

    def _shortest_prompt(self, example: Example) -> list[int]:
        """Ids of the prompt cut to half the budget, for a longer answer. Raises UserError if half is too short."""
        half = self.max_tokens // 2
        return self.fit(replace(example, demonstrations=()), half).ids if half else []

    def _num_learnt(self, piece: list[int]) -> int:
        """Number of tokens of an answer with its end mark; the chat template's text after it is not learnt."""
        ends = (place for place, token in enumerate(piece) if token in self.disarm.ids)
        return next(ends, len(piece) - 1) + 1

    def _pieces(self, examples: Sequence[Example]) -> list[list[list[int]]]:
        """Ids of each example's segments: prompt and answer in turn."""
        rows = [self._segments(example) for example in examples]
        firsts = self.batch_ids([segments[0] for segments in rows])
        pairs = [(before[-JOIN:], text) for segments in rows for before, text in pairwise(segments)]
        befores = self.tokenizer([before for before, _ in pairs], add_special_tokens=False)["input_ids"]
        wholes = self.tokenizer([before + text for before, text in pairs], add_special_tokens=False)["input_ids"]
        rest = iter(
            [
                self._ids_after(before, whole, text)
                for before, whole, (_, text) in zip(befores, wholes, pairs, strict=True)
            ]
        )
        return [[first, *(next(rest) for _ in segments[1:])] for first, segments in zip(firsts, rows, strict=True)]

    def _ids_after(self, before: list[int], whole: list[int], text: str) -> list[int]:
        """Ids of `text` after the ids `before`, never merged with them; `whole` are the ids of both texts joined."""
        if whole[: len(before)] == before:
            return whole[len(before) :]
        line, with_line = self._ids_alone("\n"), self._ids_alone("\n" + text)
        if with_line[: len(line)] == line:  # a sentencepiece tokenizer would write a space before a lone text
            return with_line[len(line) :]
        return self._ids_alone(text)

    def _segments(self, example: Example) -> list[str]:
        """Texts of an example: prompt and answer in turn."""
        if example.answer is None:
            raise UserError(f"row {example.id} has no answer to learn or to score; use rows with answers")
        *messages, cue = self.prompt.render(example)
        earlier = self.dialogue_answers(example, messages)
        turns = [*messages, Message("assistant", cue.content + example.answer)]
        segments, done = [], ""
        for place in [*earlier, len(messages)]:
            opened = self.opened(turns[:place], earlier)
            before = opened + cue.content
            stem = opened.removesuffix(self.chat.surplus if self.chat else "") + cue.content
            answered = self._answered(turns[: place + 1], earlier)
            if not (before.startswith(done) and answered.startswith(stem)):
                raise UserError(
                    f"row {example.id}: the chat template changes or omits earlier turns when an answer follows, so"
                    " answers cannot be told from prompts; use prompt.chat=false or another prompt.chat_template"
                )
            segments += [before[len(done) :], answered[len(stem) :]]
            done = answered
        if self.disarm.ids.isdisjoint(self._ids_alone(self._end_mark)):
            segments[-1] += self.end_of_text
        return segments

    def _answered(self, turns: list[Message], earlier: Sequence[int]) -> str:
        """Text of `turns`; the last turn is an answer with its end mark."""
        if self.chat:
            return self.chat(turns, opens_answer=False)
        return self.opened(turns[:-1], earlier) + turns[-1].content + self.end_of_text


def _encoded(example: Example, row: TokenRow, tokenizer: Any) -> EncodedText:
    assert row.learnt is not None
    text, own = partial(tokenizer.decode, row.token_ids), (row.was_cut, row.share_cut, row.lost, example.round)
    return EncodedText(example.id, text, row.token_ids, row.learnt, *own)


def _learnt_places(example: Example, num_pieces: int) -> list[int]:
    """Return the positions of the answers that are learnt; a cut prompt has lost its earliest turns."""
    places = range(1, num_pieces, 2)
    learns = example.learns[-len(places) :] or (True,) * len(places)
    return [place for place, is_learnt in zip(places, learns, strict=True) if is_learnt]


def _share_cut(whole: Example, shown: Example) -> float:
    """Share of the fields' characters that the prompt lost by cutting."""
    return 0.0 if shown is whole else max(0.0, 1 - kept_share(whole.fields, shown.fields))
