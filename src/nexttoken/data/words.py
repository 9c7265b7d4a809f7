"""Texts as words, for BM25: Japanese is cut by a dictionary, anything else at what is no letter or digit."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

VERSION = 1  # raise it when the words of a text change: indexes made of other words are then built again
JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff々]")  # kana and kanji
WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of `text`, in order and with repetitions, in lower case; full-width letters are half-width ones (NFKC).

    Japanese words stay as they are written: by their dictionary forms less was found (docs/retrieval.md).
    """
    plain = unicodedata.normalize("NFKC", text).replace("\0", " ").lower()
    return WORD.findall(_japanese()(plain) if JAPANESE.search(plain) else plain)


@cache
def _japanese() -> Callable[[str], str]:
    """Puts spaces between words: MeCab with unidic-lite, also where a larger dictionary is installed."""
    import fugashi
    import unidic_lite

    folder = unidic_lite.DICDIR
    return fugashi.GenericTagger(f'-r "{folder}/mecabrc" -d "{folder}" -Owakati').parse
