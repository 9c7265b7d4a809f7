"""Counts of characters and words, which models are bad at: features of baselines, and fields of prompts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log, log1p
from typing import ClassVar

from nexttoken.errors import UserError, first_five
from nexttoken.types import INPUT, Example

_WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")  # a kana or kanji counts as a word: no spaces between words
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]", re.MULTILINE)


def text_counts(text: str, context: str = "") -> dict[str, float]:
    """Counts of one text, and shares of its words that its context has; shares are in [0, 1], 0 if undefined."""
    words, context_words = _words(text), _words(context)
    distinct, known = set(words), set(context_words)
    triples, known_triples = (set(zip(some, some[1:], some[2:], strict=False)) for some in (words, context_words))
    return {
        "characters": len(text),
        "words": len(words),
        "new_words": len(distinct - known),  # distinct words that the context does not have
        "paragraphs": text.count("\n\n") + bool(text.strip()),
        "list_items": len(_LIST_ITEM.findall(text)),
        "distinct_share": len(distinct) / max(1, len(words)),  # low where the text repeats itself
        "copied_share": len(triples & known_triples) / max(1, len(triples)),  # runs of three words from the context
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class PairFeatures:
    """Named features of a pair: swapping the answers negates the `signed` ones and leaves `shared` ones as they are."""

    signed: dict[str, float]
    shared: dict[str, float]


def pair_features(first: str, second: str, context: str = "") -> PairFeatures:
    """Differences, means and distances of both texts' counts (log1p of the unbounded ones), and their word overlap."""
    counts, other_counts = text_counts(first, context), text_counts(second, context)
    scales = {name: float if name.endswith("share") else log1p for name in counts}
    pairs = {name: (scale(counts[name]), scale(other_counts[name])) for name, scale in scales.items()}
    signed = {name: one - other for name, (one, other) in pairs.items()}
    mean = {f"mean {name}": (one + other) / 2 for name, (one, other) in pairs.items()}
    distance = {f"distance {name}": abs(value) for name, value in signed.items()}
    words, other_words = set(_words(first)), set(_words(second))
    overlap = len(words & other_words) / max(1, len(words | other_words))
    alike = {"overlap": overlap, "identical": float(first == second), "context characters": log1p(len(context))}
    # The more words two answers share, the less their difference in length means.
    weighed = {f"{name} x overlap": value * overlap for name, value in signed.items()}
    return PairFeatures(signed | weighed, mean | distance | alike)


@dataclass(frozen=True)
class AddCounts:
    """Add fields that compare the counts of two answers, which a model cannot see when texts are cut.

    For each of `compared`, a name of `PairFeatures.signed`, the fields `<name>_a` and `<name>_b` have the difference in
    coarse steps: "++" is two steps more than the other answer, "-" one less, "=" about equal. `overlap` is a digit from
    0 (no common words) to 9 (the same words). The whole texts are counted; swapping the answers swaps the fields.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    compared: Sequence[str] = ("new_words", "paragraphs", "distinct_share", "characters")
    steps_per_doubling: int = 2
    steps_per_share: int = 10
    largest: int = 4

    def __post_init__(self) -> None:
        known = pair_features("", "").signed
        if unknown := [name for name in self.compared if name not in known]:
            raise UserError(f"transforms: {first_five(unknown)} cannot be compared; choose from {', '.join(known)}")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [replace(example, fields={**example.fields, **self._counts(example)}) for example in examples]

    def _counts(self, example: Example) -> dict[str, tuple[str, ...]]:
        if absent := [name for name in ("response_a", "response_b", "prompt") if name not in example.fields]:
            raise UserError(
                f"row {example.id} has no field {absent[0]!r}, whose words are counted; use transforms=none"
            )
        first, second, context = ("\n".join(example.fields[name]) for name in ("response_a", "response_b", "prompt"))
        features = pair_features(first, second, context)
        counts: dict[str, tuple[str, ...]] = {"overlap": (str(round(features.shared["overlap"] * 9)),)}
        for name in self.compared:  # differences of shares, or of logarithms
            scale = self.steps_per_share if name.endswith("share") else self.steps_per_doubling / log(2)
            steps = max(-self.largest, min(self.largest, round(features.signed[name] * scale)))
            counts |= {f"{name}_a": (_signs(steps),), f"{name}_b": (_signs(-steps),)}
        return counts


def _signs(steps: int) -> str:
    return "=" if steps == 0 else ("+" if steps > 0 else "-") * abs(steps)


@dataclass(frozen=True)
class AddLength:
    """Add the field `name` with the length that a prompt requests: `share` of the characters of `field`, at least
    `at_least`.

    The whole text counts, before any cutting. A prompt shows the number by `{{ length[0] }}`. Raises UserError for an
    example without `field`, or already with a field `name`.
    """

    share: float = 0.2
    at_least: int = 100
    field: str = INPUT
    name: str = "length"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share}: expected a share of the characters, above 0 and at most 1")
        if self.at_least < 1:
            raise UserError(f"at_least={self.at_least}: expected at least 1 character")

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [self._add_length(example) for example in examples]

    def _add_length(self, example: Example) -> Example:
        fields = example.fields
        if self.field not in fields or self.name in fields:
            fault = f"already has a field {self.name!r}" if self.name in fields else f"has no field {self.field!r}"
            raise UserError(f"row {example.id} {fault}; its fields are {', '.join(fields)}: set field= and name=")
        characters = max(self.at_least, round(self.share * sum(map(len, fields[self.field]))))
        return replace(example, fields={**fields, self.name: (str(characters),)})
