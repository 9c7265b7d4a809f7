"""Words, sentences and characters of texts, in Japanese and in languages with spaces."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from nexttoken.data.text_files import SURROGATE

VERSION = 1  # raise it when the words of a text change: indexes of other words are then rebuilt
HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = r"\u3041-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9f"
CJK = range(0x4E00, 0xA000)
JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff々]")  # kana and kanji
WORD = re.compile(r"\w+")
MAX_ANALYSED = 100_000  # characters given to MeCab at once: it crashes the process on a text of a million
CLOSING = r"""["')\]”’」』）】]"""
# A full-width mark always ends a sentence; a dot in 3.14 or a question mark in an address does not. A run of marks is
# read once, from its first mark, so texts of nothing but dots take no longer than others.
SENTENCE_END = re.compile(
    rf"""(?: [。．！？]+ | (?<![.!?])[.!?]++ (?= {CLOSING}*+ (?:\s | [^\x00-\x7f] | $) ) ) {CLOSING}*+ \s*+ | \n\s*+""",
    re.VERBOSE,
)


def words(text: str) -> list[str]:
    """Return the words of `text` in order, in lower case and with full-width letters as half-width ones (NFKC).

    Japanese words keep their written forms: dictionary forms retrieved less (docs/retrieval.md).
    """
    plain = unicodedata.normalize("NFKC", text).replace("\0", " ").lower()
    if not JAPANESE.search(plain):
        return WORD.findall(plain)
    plain = SURROGATE.sub(" ", plain)
    return [word for piece in _pieces(plain) for word in WORD.findall(_split_japanese()(piece))]


def _pieces(text: str) -> list[str]:
    """Return the text in pieces of at most MAX_ANALYSED characters, cut behind a sentence where there is one."""
    pieces, start, ends = [], 0, sentence_ends(text) if len(text) > MAX_ANALYSED else []
    while len(text) - start > MAX_ANALYSED:
        limit = start + MAX_ANALYSED
        end = ends[max(0, bisect_right(ends, limit) - 1)]
        end = end if start < end <= limit else limit
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


@cache
def _split_japanese() -> Callable[[str], str]:
    """Return MeCab with unidic-lite, which puts spaces between words; a larger installed dictionary is ignored."""
    import fugashi
    import unidic_lite

    folder = unidic_lite.DICDIR
    return fugashi.GenericTagger(f'-r "{folder}/mecabrc" -d "{folder}" -Owakati').parse


def sentence_ends(text: str) -> list[int]:
    """Character offsets behind each sentence with its closing brackets and space; the last is `len(text)`."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return ends if not text or ends[-1:] == [len(text)] else [*ends, len(text)]


@cache
def simplified() -> frozenset[str]:
    """Characters of mainland China (GB 2312) that Japanese lacks (JIS X 0208 with NEC's and IBM's, JIS X 0213)."""
    return _encodable("gb2312") - _encodable("cp932") - _encodable("euc_jis_2004")


@cache
def japanese_only() -> frozenset[str]:
    """Characters of Japanese that GB 2312 and Big5 (Taiwan) lack, such as 円 and 働."""
    return _encodable("cp932") - _encodable("gb2312") - _encodable("big5")


def _encodable(encoding: str) -> frozenset[str]:
    """Chinese characters that `encoding` has."""
    return frozenset("".join(map(chr, CJK)).encode(encoding, "ignore").decode(encoding))


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
    """Return a regular expression for one of these characters; its ranges make it fast; of none it matches nothing."""
    ranges: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]" if ranges else "(?!)"


def letters_outside(scripts: Sequence[str]) -> frozenset[str]:
    """Letters of all scripts except these."""
    return frozenset().union(*(letters for name, letters in letters_by_script().items() if name not in scripts))
