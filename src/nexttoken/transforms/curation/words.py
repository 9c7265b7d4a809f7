"""Steps that look at one row's words and lengths: forbidden texts, replacements, empty sides, lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nexttoken.errors import UserError
from nexttoken.transforms.curation.counted import Drop
from nexttoken.transforms.curation.step import RowStep
from nexttoken.transforms.curation.texts import SIDES, Side, change_texts, side_text, texts_of
from nexttoken.types import Example


@dataclass(frozen=True)
class DropWords(RowStep):
    """Drops rows that hold one of these texts, upper and lower case alike, on one of these sides."""

    words: Sequence[str]
    sides: Sequence[Side] = SIDES
    _folded: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_sides(self.sides)
        if isinstance(self.words, str):
            raise UserError(f"DropWords: words={self.words!r} would drop every letter of it; expected [{self.words}]")
        if not self.words or not all(self.words):
            raise UserError(
                "DropWords: words is empty, or holds an empty text, which every row has; list texts to drop"
            )
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
    """Replaces texts by texts, in this order, everywhere in a row; "" removes one. Drops nothing."""

    texts: Mapping[str, str]

    def __post_init__(self) -> None:
        if "" in self.texts:
            raise UserError("Replace: texts has the empty text as a key; expected the text that is to be replaced")

    def look(self, example: Example) -> Example | Drop:
        return change_texts(example, self._replace)

    def _replace(self, text: str) -> str:
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class DropEmpty(RowStep):
    """Drops rows that lack a question, an answer, or the assistant's turn: one without a letter, digit or symbol.

    Marks alone ("…", "。") are empty; "○", "+" and an emoji are answers.
    """

    def look(self, example: Example) -> Example | Drop:
        answers = () if example.answer is None else (example.answer,)
        for side, texts in (("asked", texts_of(example, "asked")), ("answered", answers)):
            if not texts or not any(is_meant(text) for text in texts):
                return Drop(f"{side}: empty")
        return example


MARKS = frozenset("。、．，.,…‥・-―—–ー～〜!！?？:：;；\"'“”‘’「」『』（）()[]【】\u200b\ufeff")


def is_meant(text: str) -> bool:
    return any(not character.isspace() and character not in MARKS for character in text)


@dataclass(frozen=True)
class Lengths(RowStep):
    """Drops rows of which a side is shorter or longer than this, in characters.

    `asked` and `answered` are (shortest, longest). Long is a side as a whole; short is its first text, which is the
    instruction whatever its input is, or what opens a dialogue.
    """

    asked: tuple[int, int] = (4, 8_000)
    answered: tuple[int, int] = (1, 8_000)

    def __post_init__(self) -> None:
        for side in SIDES:
            given = getattr(self, side)
            try:
                shortest, longest = given
                is_sound = 0 <= shortest <= longest
            except (TypeError, ValueError):
                is_sound = False
            if not is_sound:
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


def require_sides(sides: Sequence[str]) -> None:
    if not sides or set(sides) - set(SIDES):
        raise UserError(f"sides={list(sides)} is not accepted: choose from {', '.join(SIDES)}")
