"""Steps that read characters: letters of other scripts, simplified Chinese, text decoded by a wrong encoding."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from nexttoken.data.words import letters_by_script, letters_outside, simplified
from nexttoken.errors import UserError, nearest
from nexttoken.transforms.curation.step import SIDES, Drop, Step, side_text
from nexttoken.types import Example

# First words of letters' names that are not scripts: ª º ℃, letters of formulas, marks that lengthen or repeat.
SYMBOLS = (
    *("MICRO", "FEMININE", "MASCULINE", "OHM", "KELVIN", "ANGSTROM", "DOUBLE", "EULER", "INFORMATION", "SCRIPT"),
    *("MATHEMATICAL", "MODIFIER", "SUPERSCRIPT", "IDEOGRAPHIC", "PLANCK", "BLACK", "TURNED", "VERTICAL", "MASU"),
)
# Faces, (´Д｀) or щ(ﾟДﾟщ): up to 16 characters in brackets, perhaps with an arm on each side, or a mouth between eyes.
FACE = re.compile(r"\w?[(（][^()（）\n]{2,16}[)）]\w?")
BARE_FACE = re.compile(r"(?<=[´｀`ﾟ゜°･><≧≦＾^])\w(?=[´｀`ﾟ゜°･><≧≦＾^])")
NO_FACE = frozenset(" 　()（）,、.。:：/／-")  # marks around and between letters that are named or listed
JAPANESE = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH", "LATIN", "GREEK")


@dataclass(frozen=True)
class DropScripts(Step):
    """Drops rows with letters of scripts that are not in `allowed`: first words of Unicode names, such as HANGUL.

    Also drops rows with more than `simplified` characters that only simplified Chinese has (null: never).
    """

    allowed: Sequence[str] = JAPANESE
    simplified: int | None = 0

    def __post_init__(self) -> None:
        for name in self.allowed:
            if name not in (known := letters_by_script()):
                raise UserError(f"DropScripts: no letter's name begins with {name!r}; {nearest(name, known)}")

    @cached_property
    def _foreign(self) -> frozenset[str]:
        foreign = letters_outside((*self.allowed, *SYMBOLS))
        if "HALFWIDTH" in self.allowed and "HANGUL" not in self.allowed:
            foreign |= {chr(point) for point in range(0xFFA0, 0xFFDD)}  # named HALFWIDTH, but Korean
        return foreign

    def look(self, example: Example) -> Example | Drop:
        for side in SIDES:
            text = side_text(example, side)
            if not self._foreign.isdisjoint(text) and (found := self._first_foreign(text)):
                return Drop(f"{side}: {unicodedata.name(found, 'unnamed letter').split()[0].capitalize()}", found)
            if self.simplified is not None and not simplified().isdisjoint(text):
                found = "".join(character for character in text if character in simplified())
                if len(found) > self.simplified:
                    return Drop(f"{side}: simplified Chinese", found[:5])
        return example

    def _first_foreign(self, text: str) -> str:
        """Return the first foreign letter that is no part of a face; "" if there is none."""
        without = BARE_FACE.sub(" ", FACE.sub(lambda part: " " if self._is_face(part.group()) else part.group(), text))
        return next((character for character in without if character in self._foreign), "")

    def _is_face(self, part: str) -> bool:
        """Return True where foreign letters stand alone among marks: in a word, they stand side by side."""
        is_foreign = [character in self._foreign for character in part]
        marks = (character for character in part if not character.isalnum() or character in "ﾟﾞ゜゛")
        has_mark = any(character not in NO_FACE for character in marks)
        return has_mark and not any(one and two for one, two in pairwise(is_foreign))


KANA_LEADS = "".join(bytes((0xE3, second)).decode("cp932") for second in (0x81, 0x82, 0x83))  # UTF-8 kana as cp932
# UTF-8 kana or kanji as Latin-1 or cp1252: a lead byte E3 to E9, then a byte of 80 to BF.
LATIN_LEADS = re.compile("[ã-é](?:[\u0080-\u00bf]|[€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ])")
HALF_KANA = re.compile(r"[\uff61-\uff9f]")
HIRAGANA = re.compile(r"[\u3041-\u309f]")
LEAD = re.compile(f"[{KANA_LEADS}]")
MIN_LEADS, STRETCH = 4, 20  # kana leads within so many characters show a wrong encoding
BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class DropMojibake(Step):
    """Drops rows that were decoded with a wrong encoding: replacement or control characters, or traces of kana.

    UTF-8 kana decoded as cp932 give 縺, 繧 or 繝 every third character; as Latin-1 or cp1252 they give "ã" before a
    sign. EUC-JP kana decoded as cp932 give half-width katakana, which nobody writes at length without hiragana.
    """

    def look(self, example: Example) -> Example | Drop:
        for side in SIDES:
            text = side_text(example, side)
            if broken := BROKEN.search(text):
                return Drop(f"{side}: broken characters", f"U+{ord(broken.group()):04X}")
            if found := wrongly_decoded(text):
                return Drop(f"{side}: read in a wrong encoding", found)
        return example


def wrongly_decoded(text: str) -> str:
    """Return characters that show a wrong encoding; "" if there are none."""
    places = [match.start() for match in LEAD.finditer(text)]
    # Only several close together count: words such as 縺れる and 繧繝 have one or two.
    if any(last - first < STRETCH for first, last in zip(places, places[MIN_LEADS - 1 :], strict=False)):
        return "".join(text[place] for place in places[:5])
    latin = LATIN_LEADS.findall(text)
    if len(latin) >= 2:
        return "".join(latin[:5])
    half = HALF_KANA.findall(text)
    if len(half) >= 8 and len(half) > 0.3 * len(text) and not HIRAGANA.search(text):
        return "".join(half[:5])
    return ""
