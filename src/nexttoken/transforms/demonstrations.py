"""Demonstrations: solved examples that are shown before an example, the most similar ones, never itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from nexttoken.data.near_duplicates import group_ids, normalise
from nexttoken.data.words import words
from nexttoken.errors import refuse_below_one
from nexttoken.types import CONTEXT, DIALOGUE, INPUT, INSTRUCTION, PASSAGES, QUESTION, Example

ASKED = ((QUESTION,), (INSTRUCTION, INPUT), (DIALOGUE,), ("prompt",))  # fields of the question, by task


@dataclass(frozen=True)
class Pool:
    """Solved examples to choose demonstrations from; `groups` are those of near-duplicates by id, where they count."""

    examples: Sequence[Example]
    groups: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def texts(self) -> list[str]:
        return [compared_text(example) for example in self.examples]

    @cached_property
    def _identities(self) -> list[tuple[str, ...]]:
        return [_identity(example) for example in self.examples]

    def choose(self, example: Example, ranked: Iterable[int], number: int) -> tuple[Example, ...]:
        """Return up to `number` examples by `ranked`, indices with the best first; the best example is the last.

        Left out are `example` itself, its text under another id, texts that are chosen already, examples of the same
        dialogue, which may contain its answer, and its near-duplicates where `groups` has it.
        """
        seen, dialogue, chosen = {_identity(example)}, _dialogue(example), list[Example]()
        group = self.groups.get(example.id)
        for index in ranked:
            other, identity = self.examples[index], self._identities[index]
            is_near = group is not None and self.groups.get(other.id) == group
            if is_near or other.is_row(example) or identity in seen or (dialogue and _dialogue(other) == dialogue):
                continue
            seen.add(identity)
            chosen.append(other)
            if len(chosen) == number:
                break
        return tuple(reversed(chosen))


def show_similar(
    examples: Sequence[Example], pool: Sequence[Example], number: int, groups: Mapping[str, int] | None = None
) -> list[Example]:
    """Give each example up to `number` demonstrations of `pool`, by BM25, the most similar last.

    Examples without a common word fill up the number if needed; those of its group, by id, are left out.
    """
    import bm25s

    if not pool:
        return list(examples)
    solved, index = Pool(pool, groups or {}), bm25s.BM25()
    known = [words(text) for text in solved.texts]
    if not any(known):  # BM25 cannot index texts without any word
        return [replace(e, demonstrations=solved.choose(e, range(len(pool)), number)) for e in examples]
    index.index(known, show_progress=False)
    return [replace(e, demonstrations=solved.choose(e, _ranked(index, e, len(pool)), number)) for e in examples]


@dataclass(frozen=True)
class AddDemonstrations:
    """Give each training example demonstrations of the same part, as `inference=few_shot` does for prediction.

    Its near-duplicates are not shown: folds keep them together, so no held-out row is shown one, and a model that could
    copy their answers would learn nothing else.
    """

    num_demonstrations: int = 4

    def __post_init__(self) -> None:
        refuse_below_one("num_demonstrations", self.num_demonstrations)

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        first_of = {example.id: example for example in reversed(examples)}  # one order of each question
        numbers = group_ids([_asked_text(example) for example in first_of.values()]).tolist()
        groups = dict(zip(first_of, numbers, strict=True))
        return show_similar(examples, list(first_of.values()), self.num_demonstrations, groups)


def _ranked(index: Any, example: Example, num_examples: int) -> list[int]:
    known = [word for word in words(compared_text(example)) if word in index.vocab_dict]
    scores = index.get_scores(known) if known else np.zeros(num_examples)
    return np.argsort(-scores, kind="stable").tolist()


def compared_text(example: Example) -> str:
    """Text for the similarity: a dialogue's last utterance, an instruction with its input, else all but passages."""
    if DIALOGUE in example.fields:
        return example.fields[DIALOGUE][-1]
    return "\n".join(turn for turns in _question(example).values() for turn in turns).strip()


def _asked_text(example: Example) -> str:
    """Text by which near-duplicates share a fold: the question alone, not the answers to choose from."""
    names = next((names for names in ASKED if names[0] in example.fields), tuple(_question(example)))
    return "\n".join(turn for name in names for turn in example.fields.get(name, ()))


def _identity(example: Example) -> tuple[str, ...]:
    """Key of a question, the same under another id or with another order of its options or of its two answers."""
    return tuple(sorted(normalise(turn) for turns in _question(example).values() for turn in turns))


def _dialogue(example: Example) -> tuple[str, str] | None:
    """File and id of the dialogue that the example was cut from, None for what is no dialogue."""
    return (example.tags.get("file", ""), example.tags[DIALOGUE]) if example.tags.get(DIALOGUE) else None


def _question(example: Example) -> dict[str, tuple[str, ...]]:
    """The fields of the question: the instruction and its input, else all but passages."""
    names = {INSTRUCTION, INPUT} if INSTRUCTION in example.fields else set(example.fields) - {PASSAGES, CONTEXT}
    return {name: turns for name, turns in example.fields.items() if name in names}
