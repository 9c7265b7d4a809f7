"""The baseline of open answers: how well the characters of an answer follow from those before, without a model."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nexttoken.progress import Progress

ORDER = 5  # characters that decide about the next one
MAX_CHARACTERS = 1_000_000  # of training answers that are counted: more costs memory and changes little
END = "\x03"  # behind every answer, so that ending is predicted, too


@dataclass(frozen=True)
class CharacterModel:
    """Interpolated character n-grams with Witten-Bell smoothing (Bell, Witten and Cleary 1990, method C)."""

    counts: dict[str, Counter[str]]  # by the characters before
    num_symbols: int  # different characters, one for the end, one for all that were never seen

    @classmethod
    def fit(cls, answers: Sequence[str]) -> "CharacterModel":
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        seen = 0
        with Progress(len(answers), "baseline") as progress:
            for answer in answers:
                text = answer + END
                for place, character in enumerate(text):
                    for order in range(min(ORDER, place) + 1):
                        counts[text[place - order : place]][character] += 1
                seen += len(text)
                progress.advance(1)
                if seen > MAX_CHARACTERS:
                    break
        return cls(dict(counts), len(counts.get("", ())) + 1)

    def nll_per_character(self, answers: Sequence[str]) -> float:
        """Mean loss in nats, that of each answer's end among it, over the answers' own characters."""
        total = 0.0
        for text in (answer + END for answer in answers):
            contexts = (text[max(0, place - ORDER) : place] for place in range(len(text)))
            total -= sum(math.log(self._probability(*pair)) for pair in zip(contexts, text, strict=True))
        return total / max(sum(map(len, answers)), 1)

    def _probability(self, before: str, character: str) -> float:
        probability = 1 / self.num_symbols
        for order in range(len(before) + 1):
            following = self.counts.get(before[len(before) - order :])
            if following is None:
                break  # longer contexts were not seen either
            kinds, total = len(following), following.total()
            probability = (following[character] + kinds * probability) / (total + kinds)
        return probability
