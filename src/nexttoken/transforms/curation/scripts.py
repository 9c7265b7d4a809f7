"""Steps that look at characters: letters of other scripts, Chinese simplifications, text read in a wrong encoding."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from nexttoken.data.characters import letters_by_script, letters_outside, simplified
from nexttoken.errors import UserError, nearest
from nexttoken.transforms.curation.counted import Drop
from nexttoken.transforms.curation.step import RowStep
from nexttoken.transforms.curation.texts import SIDES, side_text
from nexttoken.types import Example

# Not scripts, but first words of names: ª º ℃ and the like, letters of formulas, marks that lengthen or repeat.
SYMBOLS = tuple(
    """
    MICRO FEMININE MASCULINE OHM KELVIN ANGSTROM DOUBLE EULER INFORMATION SCRIPT MATHEMATICAL MODIFIER SUPERSCRIPT
    IDEOGRAPHIC PLANCK BLACK TURNED VERTICAL MASU
    """.split()  # noqa: SIM905
)
JAPANESE = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH", "LATIN", "GREEK")


@dataclass(frozen=True)
class DropScripts(RowStep):
    """Drops rows with letters of a script that is not among `allowed`: first words of Unicode names, such as HANGUL.

    `simplified` also drops rows with more than so many characters that only simplified Chinese has (null: never).
    """

    allowed: Sequence[str] = JAPANESE
    simplified: int | None = 0
    _foreign: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.allowed:
            if name not in letters_by_script():
                raise UserError(
                    f"DropScripts: no letter's name begins with {name!r}; {nearest(name, letters_by_script())}"
                )
        foreign = letters_outside((*self.allowed, *SYMBOLS))
        if "HALFWIDTH" in self.allowed and "HANGUL" not in self.allowed:
            foreign |= {chr(point) for point in range(0xFFA0, 0xFFDD)}  # named HALFWIDTH, but Korean
        object.__setattr__(self, "_foreign", frozenset(foreign))

    def look(self, example: Example) -> Example | Drop:
        for side in SIDES:
            text = side_text(example, side)
            if not self._foreign.isdisjoint(text):
                found = next(character for character in text if character in self._foreign)
                return Drop(f"{side}: {script_of(found)}", found)
            if self.simplified is not None and not simplified().isdisjoint(text):
                found = "".join(character for character in text if character in simplified())
                if len(found) > self.simplified:
                    return Drop(f"{side}: simplified Chinese", found[:5])
        return example


def script_of(character: str) -> str:
    return unicodedata.name(character, "unnamed letter").split()[0].capitalize()


KANA_LEADS = "".join(bytes((0xE3, second)).decode("cp932") for second in (0x81, 0x82, 0x83))  # UTF-8 kana as cp932
# UTF-8 kana or kanji as Latin-1 or cp1252: a lead byte E3 to E9, then a byte of 80 to BF.
LATIN_LEADS = re.compile("[ã-é](?:[\u0080-\u00bf]|[€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ])")
HALF_KANA = re.compile(r"[\uff61-\uff9f]")
HIRAGANA = re.compile(r"[\u3041-\u309f]")
LEAD = re.compile(f"[{KANA_LEADS}]")
CLOSE, STRETCH = 4, 20  # that many leads within that many characters
BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class DropMojibake(RowStep):
    """Drops rows that were decoded by a wrong encoding: replacement and control characters, and what kana become.

    Kana of UTF-8 read as cp932 are a 縺, 繧 or 繝 every third character, read as Latin-1 or cp1252 a "ã" before a sign;
    kana of EUC-JP read as cp932 are half-width katakana, which without a hiragana among them nobody writes at length.
    """

    def look(self, example: Example) -> Example | Drop:
        for side in SIDES:
            text = side_text(example, side)
            if broken := BROKEN.search(text):
                return Drop(f"{side}: broken characters", f"U+{ord(broken.group()):04X}")
            if found := wrongly_read(text):
                return Drop(f"{side}: read in a wrong encoding", found)
        return example


def wrongly_read(text: str) -> str:
    """What gives a wrong encoding away, or ""."""
    leads = LEAD.findall(text)
    # So many close together: words such as 縺れる and 繧繝 hold one or two.
    if len(leads) >= CLOSE and any(len(LEAD.findall(text, at, at + STRETCH)) >= CLOSE for at in spots(LEAD, text)):
        return "".join(leads[:5])
    latin = LATIN_LEADS.findall(text)
    if len(latin) >= 2:
        return "".join(latin[:5])
    half = HALF_KANA.findall(text)
    if len(half) >= 8 and len(half) > 0.3 * len(text) and not HIRAGANA.search(text):
        return "".join(half[:5])
    return ""


def spots(pattern: re.Pattern[str], text: str) -> list[int]:
    return [match.start() for match in pattern.finditer(text)]
