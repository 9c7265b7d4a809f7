"""Sets of characters, computed from Unicode's names and from national encodings instead of listed by hand."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = r"\u3041-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9f"
CJK = range(0x4E00, 0xA000)


@cache
def simplified() -> frozenset[str]:
    """Characters that mainland Chinese has (GB 2312) and Japanese has not (JIS X 0208 with NEC's and IBM's, 0213)."""
    japanese = ("cp932", "euc_jis_2004")
    return frozenset(
        character
        for character in map(chr, CJK)
        if encodes(character, "gb2312") and not any(encodes(character, encoding) for encoding in japanese)
    )


@cache
def japanese_only() -> frozenset[str]:
    """Characters that Japanese has and neither GB 2312 nor Big5 (Taiwan) knows, such as 円 and 働."""
    chinese = ("gb2312", "big5")
    return frozenset(
        character
        for character in map(chr, CJK)
        if encodes(character, "cp932") and not any(encodes(character, encoding) for encoding in chinese)
    )


def encodes(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@cache
def letters_by_script() -> dict[str, frozenset[str]]:
    """Letters by the first word of their Unicode name, which is their script: HANGUL, CYRILLIC, LATIN, CJK."""
    scripts: dict[str, set[str]] = {}
    for character in map(chr, range(0x110000)):
        if unicodedata.category(character)[0] == "L":
            name = unicodedata.name(character, "UNNAMED")
            scripts.setdefault(re.split("[ -]", name)[0], set()).add(character)
    return {name: frozenset(letters) for name, letters in scripts.items()}


def character_class(characters: Iterable[str]) -> str:
    """A regular expression that matches one of these characters, written by ranges so that it stays fast."""
    ranges: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"


def letters_outside(scripts: Sequence[str]) -> frozenset[str]:
    """Letters of every script but these."""
    return frozenset().union(*(letters for name, letters in letters_by_script().items() if name not in scripts))
