"""Steps that read one row's words: forbidden texts, replacements, empty sides, lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import (
    SIDES,
    Drop,
    RowStep,
    Side,
    change_texts,
    require_sides,
    side_text,
    texts_of,
)
from nexttoken.types import Example


@dataclass(frozen=True)
class DropWords(RowStep):
    """Drops rows with one of `words` on one of `sides`, in upper or lower case."""

    words: Sequence[str]
    sides: Sequence[Side] = SIDES
    _folded: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_sides(self.sides)
        if isinstance(self.words, str):
            raise UserError(f"DropWords: words={self.words!r} is no list; expected [{self.words}]")
        if not self.words or not all(self.words):
            raise UserError("DropWords: words is empty or contains an empty text; list texts to drop")
        # The longest first: the reason then names "OpenAI API" and not "OpenAI".
        ordered = sorted(self.words, key=lambda word: (-len(word), word))
        object.__setattr__(self, "_folded", tuple((word, word.lower()) for word in ordered))

    def look(self, example: Example) -> Example | Drop:
        for side in self.sides:
            text = side_text(example, side).lower()
            for word, folded in self._folded:
                if folded in text:
                    return Drop(f"{side}: {word}")
        return example


@dataclass(frozen=True)
class Replace(RowStep):
    """Replaces the keys of `texts` by their values, in this order, everywhere in a row. Drops nothing."""

    texts: Mapping[str, str]

    def __post_init__(self) -> None:
        if "" in self.texts:
            raise UserError("Replace: texts has an empty key; expected the text to replace")

    def look(self, example: Example) -> Example | Drop:
        return change_texts(example, self._replace)

    def _replace(self, text: str) -> str:
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class DropEmpty(RowStep):
    """Drops rows without a question or without an answer: a text of white space and marks alone ("…", "。") is empty.

    "○", "+" and an emoji are answers.
    """

    def look(self, example: Example) -> Example | Drop:
        answers = () if example.answer is None else (example.answer,)
        for side, texts in (("asked", texts_of(example, "asked")), ("answered", answers)):
            if not texts or not any(has_content(text) for text in texts):
                return Drop(f"{side}: empty")
        return example


MARKS = frozenset("。、．，.,…‥・-―—–ー～〜!！?？:：;；\"'“”‘’「」『』（）()[]【】\u200b\ufeff")


def has_content(text: str) -> bool:
    return any(not character.isspace() and character not in MARKS for character in text)


@dataclass(frozen=True)
class Lengths(RowStep):
    """Drops rows with a side outside its (shortest, longest) number of characters.

    The longest is of the whole side. The shortest is of its first text: the instruction without its input, or the
    opening of a dialogue.
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
