"""Encoding of examples with a closed set of answers: token ids within a budget, and the label tokens."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.prompts.label_tokens import LabelTokens, find_label_tokens
from nexttoken.prompts.render import Renderer
from nexttoken.prompts.token_cache import CHUNK, token_rows
from nexttoken.prompts.token_file import SavedText, TokenRow
from nexttoken.types import Example

TAIL = 3  # last tokens of a prompt, which decide how a label is tokenised after them


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One example without its answer: `token_ids` (T,) int32 ends where the answer begins."""

    id: str
    label: int | None
    source: str | SavedText
    token_ids: np.ndarray
    was_cut: bool
    num_options: int | None = None
    round: int = 0  # rounds of an id alternate in training, one per epoch
    votes: tuple[float, ...] = ()  # shares of the classes; (): all for `label`
    num_targets: int = 1  # one label, of any number of tokens
    branches: tuple[np.ndarray, ...] = ()  # ids of the row's own candidates; (): the labels are the same for all rows

    @property
    def text(self) -> str:
        """Exact text that the model continues; a saved text is read from its file."""
        return self.source if isinstance(self.source, str) else self.source()


@dataclass(frozen=True, slots=True)
class Encoded:
    """All prompts of a split, their label tokens, and counts of changes."""

    prompts: list[EncodedPrompt]
    labels: LabelTokens
    num_disarmed: int  # texts in the data that look like special tokens

    def counts(self) -> dict[str, int]:
        return {"num_truncated": sum(p.was_cut for p in self.prompts), "num_disarmed": self.num_disarmed}


class Encoder(Renderer):
    """Encodes examples with labels as prompts, and finds the label tokens."""

    def encode(self, examples: Sequence[Example], expected: LabelTokens | None = None, chunk: int = CHUNK) -> Encoded:
        """Tokenise every example, cut to the budget, and find the label tokens.

        Raises UserError if the budget is too small for the prompt without its fields, or if the label tokens differ
        from the `expected` ones, with which the model was trained.
        """
        rows = token_rows(self, examples, self._make, chunk=chunk)
        alike = dict.fromkeys(example.id for example, row in zip(examples, rows, strict=True) if row.lost)
        self._report_alike(alike, len({example.id for example in examples}))
        prompts = [
            EncodedPrompt(e.id, e.label, row.text, row.token_ids, row.was_cut, e.num_options, e.round, e.votes)
            for e, row in zip(examples, rows, strict=True)
        ]
        num_disarmed = sum(row.num_disarmed for row in rows)
        labels = self._labels(prompts)
        if expected is not None and labels != expected:
            raise UserError(f"the label tokens differ from the run's:\n{labels.table()}\nexpected:\n{expected.table()}")
        if labels.num_rejoined:
            prompts = [replace(p, token_ids=p.token_ids[: -labels.num_rejoined]) for p in prompts]
        return Encoded(prompts, labels, num_disarmed)

    def for_training(self, examples: Sequence[Example]) -> Encoded:
        """Encode training examples; print the table of label tokens."""
        encoded = self.encode(examples)
        print(encoded.labels.table())
        return encoded

    def for_choosing(self, examples: Sequence[Example], train: Encoded) -> Encoded:
        """Encode the examples by which checkpoints are chosen."""
        return self.encode(examples, train.labels)

    def _report_alike(self, alike: Collection[str], num_rows: int) -> None:
        """Print the number of rows whose options became equal by cutting; raise UserError if they are most."""
        line = f"max_tokens={self.max_tokens} leaves too little of the options to tell them apart"
        if 2 * len(alike) > num_rows:
            raise UserError(f"{line} in {len(alike)} of {num_rows} rows ({first_five(alike)}); raise max_tokens")
        if alike:
            print(f"{line} in {len(alike)} of {num_rows} rows ({first_five(alike)})")

    def _make(self, examples: Sequence[Example]) -> Iterator[TokenRow]:
        return self.cut_rows(examples, [self.limit] * len(examples))

    def cut_rows(self, examples: Sequence[Example], limits: Sequence[int]) -> Iterator[TokenRow]:
        """The examples' prompts, each of at most its limit of tokens."""
        for row in self.fit_all(examples, limits):
            ids, num_disarmed = np.asarray(row.ids, np.int32), row.num_disarmed
            yield TokenRow(ids, row.text, was_cut=row.was_cut, lost=row.lost_options, num_disarmed=num_disarmed)

    @cached_property
    def limit(self) -> int:
        """Largest number of tokens of a prompt, which leaves the longest label's tokens after the answer cue free."""
        cue = self.prompt.answer_cue
        longest = max(len(self.ids(cue + label)) for label in self.prompt.labels)
        return self.max_tokens - (longest - len(self.ids(cue)))

    def _labels(self, prompts: list[EncodedPrompt]) -> LabelTokens:
        """Find the label tokens once for every different end of a prompt."""
        by_tail = {tuple(p.token_ids[-TAIL:].tolist()): p for p in prompts}
        texts = (prompt.text for prompt in by_tail.values())
        convert, unknown = self.tokenizer.convert_ids_to_tokens, self.tokenizer.unk_token_id
        return find_label_tokens(texts, self.prompt.labels, self.ids, convert, unknown)
