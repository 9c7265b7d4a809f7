"""Encoding of examples whose answer is one of their own options: the prompt once, each option as a branch behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.prompts.encode_labels import TAIL, Encoded, EncodedPrompt, Encoder
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.label_tokens import LabelTokens, find_label_tokens, num_shared
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.token_cache import CHUNK, token_rows
from nexttoken.prompts.token_file import TokenRow
from nexttoken.types import OPTIONS, Example

NUM_CHECKED = 64  # candidates that are also encoded behind a whole prompt, one for each beginning
FIX = "end prompt.answer_cue with a fixed line, such as '### Answer\\n'"


@dataclass(frozen=True, slots=True)
class Branch:
    """The ids of a candidate; `num_rejoined` of the prompt's last tokens merge with it and are part of them."""

    ids: np.ndarray
    num_rejoined: int


class CandidateEncoder(Encoder):
    """Encodes prompts once, and behind them each candidate with the text `after` that follows it.

    A candidate is encoded behind the last line of the prompts, once for all rows, and some also behind a whole prompt:
    tokens that span the join are therefore right. `answers` are words that may follow `after`, the first one for a
    right candidate; () where none is read.
    """

    def __init__(
        self, tokenizer: Any, prompt: Prompt, max_tokens: int, after: str = "", answers: Sequence[str] = ()
    ) -> None:
        super().__init__(tokenizer, prompt, max_tokens)
        self.after, self.answers = after, tuple(answers)
        self._first = self._end = ""  # a whole prompt, and the end behind which candidates are encoded
        self._tail: list[int] = []  # last tokens of every prompt, at most TAIL, none of them before the last line
        self._branches: dict[str, Branch] = {}
        self._answer_tokens = NO_LABELS

    def encode(self, examples: Sequence[Example], expected: LabelTokens | None = None, chunk: int = CHUNK) -> Encoded:
        """Tokenise each prompt, cut to the budget that its longest candidate leaves, and its candidates.

        Raises UserError if the budget is too small, a candidate has no text, prompts end differently, or the answers'
        tokens differ from the `expected` ones, with which the model was trained.
        """
        if not examples:
            return Encoded([], expected or NO_LABELS, 0)
        num_disarmed = self._add_branches(examples)
        rows = token_rows(self, examples, self._make, f"{self.after} {self.answers}", chunk)
        labels = self._answer_tokens
        if expected is not None and labels != expected:
            raise UserError(
                f"the answers' tokens differ from the run's:\n{labels.table()}\nexpected:\n{expected.table()}"
            )
        if other := [e.id for e, row in zip(examples, rows, strict=True) if not self._ends(row.token_ids)]:
            raise UserError(f"{len(other)} prompts end unlike the others ({first_five(other)}); {FIX}")
        prompts = [self._prompt(*pair) for pair in zip(examples, rows, strict=True)]
        return Encoded(prompts, labels, num_disarmed + sum(row.num_disarmed for row in rows))

    def for_training(self, examples: Sequence[Example]) -> Encoded:
        """Encode training examples; print the number of candidates and the tokens of the answers to them."""
        encoded = self.encode(examples)
        sizes = [len(branch.ids) for branch in self._branches.values()]
        print(f"candidates: {len(sizes):,} texts of {min(sizes)} to {max(sizes)} tokens, behind {self._end!r}")
        if self.answers:
            print(encoded.labels.table())
        return encoded

    def _make(self, examples: Sequence[Example]) -> Iterator[TokenRow]:
        limits = [self.max_tokens - max(map(self._num_tokens, example.fields[OPTIONS])) for example in examples]
        return self.cut_rows([self._asked(example) for example in examples], limits)

    def _asked(self, example: Example) -> Example:
        """The example without its options, unless the prompt shows them."""
        if self.prompt.options:
            return example
        return replace(example, fields={name: turns for name, turns in example.fields.items() if name != OPTIONS})

    def _num_tokens(self, candidate: str) -> int:
        branch = self._branches[candidate]
        return len(branch.ids) + branch.num_rejoined

    def _add_branches(self, examples: Sequence[Example]) -> int:
        """Encode the candidates that are new; return the number of texts in them that looked like special tokens."""
        if not self._first:
            self._first = self.text(self.disarm(self._asked(examples[0]))[0])
            self._end = last_line(self._first)
            number = len(self.ids(self._end)) - len(self.opening) - 1  # its first token may be another in a prompt
            self._tail = self.ids(self._first)[-min(max(number, 1), TAIL) :]
        new = list(dict.fromkeys(text for e in examples for text in e.fields[OPTIONS] if text not in self._branches))
        clean, num_disarmed = self.disarm(Example("", {OPTIONS: tuple(new)}))
        texts = [text + self.after for text in clean.fields[OPTIONS]]
        branches = self._encoded(self._end, texts)
        checked = list({text[:2]: place for place, text in enumerate(texts)}.values())[:NUM_CHECKED]
        whole = self._encoded(self._first, [texts[place] for place in checked])
        if any(not same(branches[place], one) for place, one in zip(checked, whole, strict=True)):
            self._end = self._first  # the tokenizer looks further back than a line
            branches = self._encoded(self._end, texts)
        if empty := [text for text, branch in zip(new, branches, strict=True) if not len(branch.ids)]:
            raise UserError(f"the candidate {empty[0]!r} has no tokens; expected texts that are not empty")
        if max((branch.num_rejoined for branch in branches), default=0) > len(self._tail):
            raise UserError(f"a candidate changes more than {TAIL} tokens of the prompt; {FIX}")
        if self.answers and texts:
            self._answer_tokens, branches = self._before_answers(texts, branches)
        self._branches |= zip(new, branches, strict=True)
        return num_disarmed

    def _encoded(self, end: str, texts: Sequence[str]) -> list[Branch]:
        alone, *wholes = self.batch_ids([end, *(end + text for text in texts)])
        shared = [num_shared(alone, ids) for ids in wholes]
        return [
            Branch(np.array(ids[keep:], np.int32), len(alone) - keep) for ids, keep in zip(wholes, shared, strict=True)
        ]

    def _before_answers(self, texts: Sequence[str], branches: list[Branch]) -> tuple[LabelTokens, list[Branch]]:
        """The answers' tokens, which must be the same behind all candidates, and the branches up to them."""
        by_tail = {tuple(branch.ids[-TAIL:].tolist()): text for text, branch in zip(texts, branches, strict=True)}
        convert, unknown = self.tokenizer.convert_ids_to_tokens, self.tokenizer.unk_token_id
        ends = (self._end + text for text in by_tail.values())
        found = find_label_tokens(ends, self.answers, self.ids, convert, unknown)
        if self._answer_tokens not in (NO_LABELS, found):
            raise UserError("the answers' tokens depend on the candidate; end head.after with a line break")
        if len({ids[0] for ids in found.continuations}) < len(self.answers):
            raise UserError(f"head.answers begin with the same token; choose others\n{found.table()}")
        if number := found.num_rejoined:
            branches = [replace(branch, ids=branch.ids[:-number]) for branch in branches]
        return found, branches

    def _ends(self, ids: np.ndarray) -> bool:
        return ids[-len(self._tail) :].tolist() == self._tail

    def _prompt(self, example: Example, row: TokenRow) -> EncodedPrompt:
        """The row's prompt with its branches; tokens that merge with one of them are taken into all."""
        parts = [self._branches[text] for text in example.fields[OPTIONS]]
        most, ids = max(part.num_rejoined for part in parts), row.token_ids
        branches = tuple(part.ids for part in parts)
        if most:
            taken = ids[len(ids) - most :]
            branches = tuple(np.concatenate([taken[: most - part.num_rejoined], part.ids]) for part in parts)
        own = (row.text, ids[: len(ids) - most], row.was_cut, len(parts), example.round, example.votes)
        return EncodedPrompt(example.id, example.label, *own, branches=branches)


def last_line(text: str) -> str:
    """The last line that has a text, with the line breaks behind it."""
    return text[text.rstrip("\n").rfind("\n") + 1 :]


def same(one: Branch, other: Branch) -> bool:
    """True where two branches have the same tokens."""
    return one.num_rejoined == other.num_rejoined and np.array_equal(one.ids, other.ids)
