"""Words and sentences of texts in Japanese and other languages, and sets of characters as regular expressions."""

import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexttoken.data import words as module
from nexttoken.data.words import (
    character_class,
    japanese_only,
    letters_by_script,
    letters_outside,
    sentence_ends,
    simplified,
    words,
)

ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(
    "富士山は高い。かなアa .!?」)\n\r\x0b\0\ud800３.", max_size=40
)


@given(ANY_TEXT)
@example("日本\ud800語 \udfff")
@example("\0日本語\x1f")
def test_words_are_lower_case_letters_and_digits_of_the_text(text: str) -> None:
    found = words(text)
    assert all(re.fullmatch(r"\w+", word) for word in found)
    assert all(word == word.lower() for word in found)
    assert (not found) == (not words(text.strip()))


@given(st.text("abcäß019 .,-\n", max_size=30), st.text("abcäß019 .,-\n", max_size=30))
def test_words_of_two_lines_are_those_of_each(first: str, second: str) -> None:
    assert words(f"{first}\n{second}") == words(first) + words(second)
    assert words(" ".join(words(first))) == words(first)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("…！？", []),
        ("ＡＢＣ　Ⅻ", ["abc", "xii"]),
        ("ﾃﾚﾋﾞは", ["テレビ", "は"]),
        ("富士山は高い。", ["富士", "山", "は", "高い"]),
        ("snake_case 3.14", ["snake_case", "3", "14"]),
    ],
)
def test_words_by_example(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize("text", ["富士山は高い。"])
def test_a_text_of_millions_of_characters_has_the_words_of_its_sentences(text: str) -> None:
    copies = 1_000_000 // len(text)  # as a whole, such a text ends the process inside MeCab
    assert words(text * copies) == words(text) * copies


@pytest.mark.parametrize("text", ["日本語です。\n", "あ" * 50, "日本語です。" + "あ" * 50 + "。"])
@pytest.mark.parametrize("limit", [1, 6, 7, 20])
def test_pieces_are_the_text_and_none_is_longer_than_the_limit(monkeypatch, text: str, limit: int) -> None:
    monkeypatch.setattr(module, "MAX_ANALYSED", limit)
    pieces = module._pieces(text * 3)
    assert "".join(pieces) == text * 3
    assert max(map(len, pieces)) <= limit


def test_pieces_end_behind_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_ANALYSED", 8)
    assert module._pieces("雨です。雪です。\n晴れでしょうか？はい") == [
        "雨です。",
        "雪です。\n",
        "晴れでしょうか？",
        "はい",
    ]


@given(ANY_TEXT)
def test_sentences_cover_the_text_in_order(text: str) -> None:
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert (ends[-1] if ends else 0) == len(text)
    assert all(end > 0 for end in ends)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Pi is 3.14. Really?! (Yes.) no", ["Pi is 3.14. ", "Really?! ", "(Yes.) ", "no"]),
        ("はい。「そうです。」と言う！？次", ["はい。", "「そうです。」", "と言う！？", "次"]),
        ("see a.b/c?d=1 now", ["see a.b/c?d=1 now"]),
        ("one\n\n two\n", ["one\n\n ", "two\n"]),
        ("Wait...です", ["Wait...", "です"]),
        ("...", ["..."]),
    ],
)
def test_sentences_by_example(text: str, sentences: list[str]) -> None:
    ends = sentence_ends(text)
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == sentences


def test_sentences_of_nothing_but_marks_are_read_in_linear_time() -> None:
    for text in ("." * 50_000, '."' * 50_000, "\n" * 50_000, ".a" * 50_000):
        assert sentence_ends(text)[-1] == len(text)


@given(st.sets(st.characters(), max_size=30))
@example(set())
@example({"\0", "]", "\\", "^", "-", "[", "\U0010ffff"})
def test_a_class_matches_its_characters_and_no_others(characters: set[str]) -> None:
    pattern = re.compile(character_class(characters))
    tried = characters | {chr(min(ord(one) + 1, sys.maxunicode)) for one in characters} | set("a]^-")
    assert {one for one in tried if pattern.fullmatch(one)} == characters


def test_scripts_divide_the_letters() -> None:
    scripts = letters_by_script()
    assert "a" in scripts["LATIN"]
    assert "я" in scripts["CYRILLIC"]
    assert sum(map(len, scripts.values())) == len(frozenset().union(*scripts.values()))
    assert letters_outside(list(scripts)) == frozenset()
    assert letters_outside([]) == frozenset().union(*scripts.values())
    assert not letters_outside(["LATIN"]) & scripts["LATIN"]


def test_simplified_and_japanese_characters_do_not_overlap() -> None:
    assert not simplified() & japanese_only()
    assert {"们", "这"} <= simplified()
    assert {"円", "働"} <= japanese_only()
