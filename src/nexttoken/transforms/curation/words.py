"""Steps that read the words of a row: forbidden texts, replacements, empty texts, lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import SIDES, Drop, Side, Step, change_texts, require_sides, side_text, texts_of
from nexttoken.types import Example

MARKS = frozenset("。、．，.,…‥・-―—–ー～〜!！?？:：;；\"'“”‘’「」『』（）()[]【】\u200b\ufeff")


@dataclass(frozen=True)
class DropWords(Step):
    """Drops rows with one of `words` on one of `sides`, in upper or lower case."""

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
    def _folded(self) -> list[tuple[str, str]]:
        """Words and their lower case, the longest first: the reason then names "OpenAI API" and not "OpenAI"."""
        return [(word, word.lower()) for word in sorted(self.words, key=lambda word: (-len(word), word))]

    def look(self, example: Example) -> Example | Drop:
        texts = {side: side_text(example, side).lower() for side in self.sides}
        found = (f"{side}: {word}" for side, text in texts.items() for word, folded in self._folded if folded in text)
        reason = next(found, None)
        return Drop(reason) if reason else example


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
