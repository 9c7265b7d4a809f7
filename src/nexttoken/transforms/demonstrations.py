"""Which solved questions to show before a question: those with the most telling words in common (BM25)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nexttoken.errors import UserError
from nexttoken.retrieval.words import words
from nexttoken.splits import normalise
from nexttoken.types import OPTIONS, PASSAGES, Example


def show_similar(examples: Sequence[Example], pool: Sequence[Example], number: int) -> list[Example]:
    """Each example with up to `number` of `pool` before it, the most similar last; never itself or its own text."""
    import bm25s

    if not pool:
        return list(examples)
    texts = [_text(example) for example in pool]
    index = bm25s.BM25()
    index.index([words(text) for text in texts], show_progress=False)
    same = [_identity(example) for example in pool]
    return [replace(e, demonstrations=_nearest(index, e, pool, same, number)) for e in examples]


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


def _nearest(
    index: "object", example: Example, pool: Sequence[Example], same: Sequence[tuple[str, ...]], number: int
) -> tuple[Example, ...]:
    text = _text(example)
    asked, scores = words(text), np.zeros(len(pool))
    known = [word for word in asked if word in index.vocab_dict]  # type: ignore[attr-defined]
    if known:
        scores = index.get_scores(known)  # type: ignore[attr-defined]
    order = np.argsort(-scores, kind="stable")[: number + 8]
    own = _identity(example)
    chosen = [row for row in order if pool[row].id != example.id and same[row] != own][:number]
    return tuple(pool[row] for row in reversed(chosen))


def _text(example: Example) -> str:
    """What is compared: the fields of the question itself, without passages."""
    return "\n".join(turn for name, turns in example.fields.items() if name != PASSAGES for turn in turns)


def _identity(example: Example) -> tuple[str, ...]:
    """Equal for a question under two ids, in whatever order its options stand."""
    fields = {name: turns for name, turns in example.fields.items() if name != PASSAGES}
    options = sorted(normalise(option) for option in fields.pop(OPTIONS, ()))
    return (*(normalise(turn) for turns in fields.values() for turn in turns), *options)
