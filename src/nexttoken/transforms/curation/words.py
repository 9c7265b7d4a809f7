"""Steps that read the words of a row: forbidden texts, replacements, empty texts, lengths."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from nexttoken.data.words import HAN, KANA
from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import SIDES, Drop, Side, Step, change_texts, require_sides, side_text, texts_of
from nexttoken.types import Example

MARKS = frozenset("。、．，.,…‥・-―—–ー～〜!！?？:：;；\"'“”‘’「」『』（）()[]【】\u200b\ufeff")

# A letter of a script that puts spaces between words; Thai, Lao, Burmese and Khmer do not, and Korean adds particles.
LETTER = rf"[^\W\d_ー{HAN}{KANA}\uac00-\ud7a3\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
TOKEN = re.compile(r"\s+|[!-~]+|[^\s!-~]+")  # space, ASCII, other characters
NUM_AROUND = 20  # characters shown on each side of a forbidden text


@dataclass(frozen=True)
class DropWords(Step):
    """Drops rows with one of `words` on one of `sides`, in upper or lower case.

    A Latin word counts as a whole word: "as an ai" is no part of "as an aide". A plural s and digits may follow.
    Between Latin and Japanese letters there may be a space. The detail of a dropped row shows the word in its sentence.
    """

    words: Sequence[str]
    sides: Sequence[Side] = SIDES

    def __post_init__(self) -> None:
        require_sides(self.sides)
        if isinstance(self.words, str):
            raise UserError(f"DropWords: words={self.words!r} is no list; expected [{self.words}]")
        if numbers := [word for word in self.words if not isinstance(word, str)]:
            raise UserError(f"DropWords: {numbers[0]!r} in words is no text; quote it")
        if not self.words or not all(self.words):
            raise UserError("DropWords: words is empty or contains an empty text; list texts to drop")

    @cached_property
    def _patterns(self) -> list[tuple[str, str, re.Pattern[str]]]:
        """Words, a part of each, and its pattern, the longest first: "OpenAI API" is then named and not "OpenAI"."""
        ordered = sorted(self.words, key=lambda word: (-len(word), word))
        return [(word, max(TOKEN.findall(word.lower()), key=len), word_pattern(word.lower())) for word in ordered]

    def look(self, example: Example) -> Example | Drop:
        for side in self.sides:
            text = side_text(example, side).lower()
            for word, part, pattern in self._patterns:
                if part in text and (found := pattern.search(text)):  # nearly all texts lack the part
                    around = text[max(0, found.start() - NUM_AROUND) : found.end() + NUM_AROUND]
                    return Drop(f"{side}: {word}", " ".join(around.split()))
        return example


def word_pattern(word: str) -> re.Pattern[str]:
    """Return a pattern of a text that stands as a whole word where its first and last characters are of words."""
    before, after = (next((edge for edge in (LETTER, r"\d") if re.match(edge, word[place])), None) for place in (0, -1))
    tokens = [r"\s+" if token.isspace() else re.escape(token) for token in TOKEN.findall(word)]
    whole = r"\s*".join(tokens).replace(r"\s*\s+\s*", r"\s+")
    start = f"(?<!{before})" if before else ""
    plural = "(?:e?s)?" if after == LETTER else ""
    return re.compile(f"{start}{whole}{plural}(?!{after})" if after else f"{start}{whole}")


@dataclass(frozen=True)
class Replace(Step):
    """Replaces the keys of `texts` by their values, in this order, in all texts of a row."""

    texts: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.texts, Mapping) or not all(isinstance(text, str) for text in chain(*self.texts.items())):
            raise UserError(f"Replace: texts={self.texts!r:.60}; expected {{old text: new text}}, numbers in quotes")
        if "" in self.texts:
            raise UserError("Replace: texts has an empty key; expected the text to replace")

    def look(self, example: Example) -> Example | Drop:
        return change_texts(example, self._replace)

    def _replace(self, text: str) -> str:
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class DropEmpty(Step):
    """Drops rows without a question or an answer. Texts of only white space and marks ("…", "。") are empty.

    "○", "+" and an emoji are answers.
    """

    def look(self, example: Example) -> Example | Drop:
        answers = () if example.answer is None else (example.answer,)
        for side, texts in (("asked", texts_of(example, "asked")), ("answered", answers)):
            if all(character.isspace() or character in MARKS for text in texts for character in text):
                return Drop(f"{side}: empty")
        return example


@dataclass(frozen=True)
class Lengths(Step):
    """Drops rows with fewer or more characters than (shortest, longest).

    The longest is of all texts of a side. The shortest is of its first text: the instruction without its input, or
    the opening of a dialogue.
    """

    asked: tuple[int, int] = (4, 8_000)
    answered: tuple[int, int] = (1, 8_000)

    def __post_init__(self) -> None:
        for side in SIDES:
            match given := getattr(self, side):
                case [int() | float() as shortest, int() | float() as longest] if 0 <= shortest <= longest:
                    continue
            raise UserError(f"Lengths: {side}={given}, expected [shortest, longest] in characters")

    def look(self, example: Example) -> Example | Drop:
        for side in SIDES:
            shortest, longest = getattr(self, side)
            texts = texts_of(example, side)
            if (length := len(texts[0].strip()) if texts else 0) < shortest:
                return Drop(f"{side}: too short", f"{length} characters")
            if (length := sum(map(len, texts))) > longest:
                return Drop(f"{side}: too long", f"{length:,} characters")
        return example
