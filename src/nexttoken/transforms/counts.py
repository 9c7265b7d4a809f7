"""Counts of texts that a model cannot make itself: features of baselines, and fields of prompts."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log1p

from nexttoken.errors import UserError, first_five
from nexttoken.types import Example

_WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")  # a kana or kanji counts as a word: no spaces between words
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]", re.MULTILINE)


def text_counts(text: str, context: str = "") -> dict[str, float]:
    """Counts of one text, and shares of its words that its context has; shares are in [0, 1], 0 if undefined."""
    words, context_words = _WORD.findall(text.casefold()), _WORD.findall(context.casefold())
    distinct, known = set(words), set(context_words)
    triples, known_triples = _triples(words), _triples(context_words)
    return {
        "characters": len(text),
        "words": len(words),
        "new_words": len(distinct - known),  # distinct words that the context does not have
        "paragraphs": text.count("\n\n") + bool(text.strip()),
        "list_items": len(_LIST_ITEM.findall(text)),
        "distinct_share": len(distinct) / max(1, len(words)),  # low where the text repeats itself
        "copied_share": len(triples & known_triples) / max(1, len(triples)),  # runs of three words from the context
    }


def _triples(words: list[str]) -> set[tuple[str, str, str]]:
    return set(zip(words, words[1:], words[2:], strict=False))


@dataclass(frozen=True)
class PairFeatures:
    """Named features of a pair: swapping the answers negates the `signed` ones and leaves the `shared` ones."""

    signed: dict[str, float]
    shared: dict[str, float]


def pair_features(first: str, second: str, context: str = "") -> PairFeatures:
    """Differences, means and distances of both texts' counts (log1p of the unbounded ones), and their word overlap."""
    counts = [
        {name: value if name.endswith("share") else log1p(value) for name, value in text_counts(text, context).items()}
        for text in (first, second)
    ]
    pairs = {name: (value, counts[1][name]) for name, value in counts[0].items()}
    signed = {name: one - other for name, (one, other) in pairs.items()}
    mean = {f"mean {name}": (one + other) / 2 for name, (one, other) in pairs.items()}
    distance = {f"distance {name}": abs(value) for name, value in signed.items()}
    words, other_words = (set(_WORD.findall(text.casefold())) for text in (first, second))
    overlap = len(words & other_words) / max(1, len(words | other_words))
    alike = {"overlap": overlap, "identical": float(first == second), "context characters": log1p(len(context))}
    # The more words two answers share, the less their difference in length means.
    weighed = {f"{name} x overlap": value * overlap for name, value in signed.items()}
    return PairFeatures(signed | weighed, mean | distance | alike)


@dataclass(frozen=True)
class AddCounts:
    """Add fields that compare two answers in what a model cannot count itself, above all when texts are cut.

    For each of `compared`, a name of `PairFeatures.signed`, the fields `<name>_a` and `<name>_b` have the difference in
    coarse steps: "++" is two steps more than the other answer, "-" one less, "=" about equal. `overlap` is a digit from
    0 (no common words) to 9 (the same words). All come from one example's whole texts; swapping the answers swaps them.
    """

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
        first, second, context = ("\n".join(example.fields[name]) for name in ("response_a", "response_b", "prompt"))
        features = pair_features(first, second, context)
        counts: dict[str, tuple[str, ...]] = {"overlap": (str(round(features.shared["overlap"] * 9)),)}
        for name in self.compared:
            steps = self._steps(name, features.signed[name])
            counts |= {f"{name}_a": (_signs(steps),), f"{name}_b": (_signs(-steps),)}
        return counts

    def _steps(self, name: str, difference: float) -> int:
        """Steps of a difference of logarithms (`steps_per_doubling`) or of shares, at most `largest`."""
        scale = self.steps_per_share if name.endswith("share") else self.steps_per_doubling / math.log(2)
        return max(-self.largest, min(self.largest, round(difference * scale)))


def _signs(steps: int) -> str:
    return "=" if steps == 0 else ("+" if steps > 0 else "-") * abs(steps)
