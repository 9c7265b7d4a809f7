"""Draws words into the places of sentences: the same generator gives the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import Formatter

import numpy as np

from benchmarks.curation_noise import words
from benchmarks.curation_noise.sentences import SENTENCES
from samples import pick, some

CHOICES = {
    "thing": words.THINGS,
    "other": words.THINGS,
    "place": words.PLACES,
    "place2": words.PLACES,
    "surname": words.SURNAMES,
    "surname2": words.SURNAMES,
    "given": words.GIVEN,
    "when": words.WHEN,
    "quality": words.QUALITIES,
    "deed": words.DEEDS,
    "reason": words.REASONS,
    "caution": words.CAUTIONS,
    "english": words.ENGLISH,
}
RANGES = {"number": (2, 99, 10), "small": (2, 9, 1), "percent": (11, 89, 1)}  # lowest, highest, times


@cache
def places(form: str) -> tuple[str, ...]:
    """Names of the places in a form, each once."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(form) if name))


@dataclass(frozen=True)
class Draw:
    """Draws by one generator, in the order of the calls."""

    rng: np.random.Generator

    def one(self, items: Sequence[str]) -> str:
        return pick(items, self.rng)

    def some(self, items: Sequence[str], count: int) -> list[str]:
        return some(items, count, self.rng)

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def uncommon(self) -> str:
        """Few of them often, most of them seldom (Zipf)."""
        return words.UNCOMMON[min(int(self.rng.zipf(1.3)), len(words.UNCOMMON)) - 1]

    def fill(self, form: str, **given: str) -> str:
        """Put a word into every place of `form`, those of `given` into theirs."""
        return form.format(**{name: given[name] if name in given else self._word(name) for name in places(form)})

    def _word(self, name: str) -> str:
        if name == "uncommon":
            return self.uncommon()
        if name in RANGES:
            low, high, factor = RANGES[name]
            return str(self.whole(low, high) * factor)
        return self.one(CHOICES[name])

    def paragraph(self, count: int, **given: str) -> str:
        return "".join(self.fill(form, **given) for form in self.some(SENTENCES, count))
