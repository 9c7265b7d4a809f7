"""Which solved rows to show before a row: the most similar ones, never the row itself or its own text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nexttoken.data.near_duplicates import normalise
from nexttoken.data.words import words
from nexttoken.errors import UserError
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, OPTIONS, PASSAGES, Example


@dataclass(frozen=True)
class Pool:
    """Solved rows, and which of them may be shown to whom."""

    rows: Sequence[Example]

    @cached_property
    def texts(self) -> list[str]:
        return [compared_text(row) for row in self.rows]

    @cached_property
    def _identities(self) -> list[tuple[str, ...]]:
        return [_identity(row) for row in self.rows]

    def choose(self, example: Example, ranked: Iterable[int], number: int) -> tuple[Example, ...]:
        """Up to `number` rows of `ranked`, indices of the best first; returned with the best last.

        Left out are the row itself, its own text under another id, a text that is chosen already, and what belongs to
        the row's own dialogue, where its answer may stand.
        """
        seen, dialogue, chosen = {_identity(example)}, example.tags.get(DIALOGUE), list[Example]()
        for index in ranked:
            row, identity = self.rows[index], self._identities[index]
            if row.id == example.id or identity in seen or (dialogue and row.tags.get(DIALOGUE) == dialogue):
                continue
            seen.add(identity)
            chosen.append(row)
            if len(chosen) == number:
                break
        return tuple(reversed(chosen))


def show_similar(examples: Sequence[Example], pool: Sequence[Example], number: int) -> list[Example]:
    """Each example with `number` of `pool` before it, by the telling words in common (BM25), the most similar last.

    Rows without a word in common make up the number where too few have one.
    """
    import bm25s

    if not pool:
        return list(examples)
    solved, index = Pool(pool), bm25s.BM25()
    index.index([words(text) for text in solved.texts], show_progress=False)
    return [replace(e, demonstrations=solved.choose(e, _ranked(index, e, len(pool)), number)) for e in examples]


@dataclass(frozen=True)
class AddDemonstrations:
    """Show each training row solved ones of the same training part, as it will be asked with `inference=few_shot`."""

    num_demonstrations: int = 4

    def __post_init__(self) -> None:
        if self.num_demonstrations < 1:
            raise UserError(f"num_demonstrations={self.num_demonstrations}: expected at least 1")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        first_of = {example.id: example for example in reversed(examples)}  # one order of each question
        return show_similar(examples, list(first_of.values()), self.num_demonstrations)


def _ranked(index: "object", example: Example, num_rows: int) -> Iterable[int]:
    known = [word for word in words(compared_text(example)) if word in index.vocab_dict]  # type: ignore[attr-defined]
    scores = index.get_scores(known) if known else np.zeros(num_rows)  # type: ignore[attr-defined]
    return np.argsort(-scores, kind="stable").tolist()


def compared_text(example: Example) -> str:
    """What is compared: an instruction with its input, a dialogue's last utterance, else the fields but passages."""
    if DIALOGUE in example.fields:
        return example.fields[DIALOGUE][-1]
    return "\n".join(turn for turns in _own(example).values() for turn in turns).strip()


def _identity(example: Example) -> tuple[str, ...]:
    """Equal for a question under two ids, in whatever order its options stand."""
    fields = _own(example)
    options = sorted(normalise(option) for option in fields.pop(OPTIONS, ()))
    return (*(normalise(turn) for turns in fields.values() for turn in turns), *options)


def _own(example: Example) -> dict[str, tuple[str, ...]]:
    """The fields of the task itself: without passages, and of an instruction without what else is told of it."""
    told = {INSTRUCTION, INPUT} if INSTRUCTION in example.fields else set(example.fields) - {PASSAGES}
    return {name: turns for name, turns in example.fields.items() if name in told}
