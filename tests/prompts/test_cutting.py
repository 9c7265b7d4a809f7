"""Texts that do not fit are cut in equal measure, from the earliest turn on, and by whole sentences if set so."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.data.words import sentence_ends
from nexttoken.prompts.cutting import cut_sentences, cut_tokens, fair_share, fit_fields, fit_passages, kept_share


def words(text: str) -> list[tuple[int, int]]:
    """A tokenizer for these tests: every word with the spaces behind it."""
    return [match.span() for match in re.finditer(r"\S+\s*|\s+", text)]


texts = st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=12).map(" ".join)
dialogues = st.integers(1, 6).flatmap(
    lambda n: st.fixed_dictionaries(
        {name: st.lists(texts, min_size=n, max_size=n).map(tuple) for name in ("prompt", "response_a", "response_b")}
    )
)


def size(fields) -> int:
    return sum(len(words(turn)) for turns in fields.values() for turn in turns)


@given(dialogues, st.integers(0, 60), st.sampled_from([0.0, 0.7, 1.0]))
def test_fitted_fields(fields, budget, cut_at):
    fitted = fit_fields(fields, budget, words, cut_at)
    kept = {len(turns) for turns in fitted.values()}
    num_turns = len(fields["prompt"])
    assert len(kept) == 1, "the dialogues lose the same turns"
    first = num_turns - kept.pop()
    assert first < num_turns, "the last turn stays"
    assert size(fitted) <= budget
    if size(fields) <= budget:
        assert fitted == fields
    if first + 1 < num_turns:  # more than the last turn is left: only whole turns went, the earliest, and none in vain
        assert fitted == {name: turns[first:] for name, turns in fields.items()}
        assert first == 0 or size({name: turns[first - 1 :] for name, turns in fields.items()}) > budget


@given(dialogues, st.integers(0, 60), st.integers(0, 9))
def test_turns_cost_what_the_template_puts_around_them(fields, budget, turn_tokens):
    fitted = fit_fields(fields, budget, words, 0.0, turn_tokens)
    assert size(fitted) + turn_tokens * (len(fitted["prompt"]) - 1) <= budget


def test_a_field_of_one_text_stays_when_turns_go():
    fields = {"genre": ("law",), "prompt": ("a a a", "b"), "answer": ("c c c", "d")}
    assert fit_fields(fields, 4, words, 0.0) == {"genre": ("law",), "prompt": ("b",), "answer": ("d",)}


def test_short_texts_stay_whole_and_long_ones_share_the_rest():
    fields = {"prompt": ("q",), "a": ("1 2 3 4 5 6 7 8",), "b": ("1 2 3 4 5 6",)}
    assert fit_fields(fields, 9, words, 0.0) == {"prompt": ("q",), "a": ("5 6 7 8",), "b": ("3 4 5 6",)}


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(-5, 200))
def test_fair_share_is_the_largest_cap_that_fits(sizes, budget):
    cap = fair_share(sizes, budget)
    assert sum(min(size, cap) for size in sizes) <= max(budget, 0)
    assert cap == max(sizes) or sum(min(size, cap + 1) for size in sizes) > budget


@pytest.mark.parametrize(("cut_at", "left"), [(0, "7 8 9 10"), (1, "1 2 3 4 "), (0.7, "1 2 3 10"), (0.5, "1 2 9 10")])
def test_where_a_text_is_cut(cut_at, left):
    text = "1 2 3 4 5 6 7 8 9 10"
    assert cut_tokens(text, words, 4, cut_at) == left
    assert cut_tokens(text, words, 10, cut_at) == text
    assert cut_tokens(text, words, 0, cut_at) == ""


def test_no_option_is_dropped_and_passages_lose_their_end():
    fields = {"question": ("a b c d e f",), "options": ("g h", "i", "j k l m n"), "passages": ()}
    fitted = fit_fields(fields, 12, words, 0.0, 0, "options")
    assert fitted == {"question": ("c d e f",), "options": fields["options"], "passages": ()}, "the options stay whole"
    fitted = fit_fields(fields, 8, words, 0.0, 0, "options")
    assert fitted == {"question": ("e f",), "options": ("g h", "i", "l m n"), "passages": ()}, (
        "a quarter is the question's"
    )
    assert fit_passages(["a b c", "d e f", "g"], 5, words) == ("a b c", "d e ")
    assert fit_passages(["a b c", "d e f", "g"], 100, words) == ("a b c", "d e f", "g")
    assert fit_passages(["a b c"], 0, words) == ()


def split(text: str) -> list[str]:
    ends = sentence_ends(text)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    "sentences",
    [
        [],
        ["no end at all"],
        ["One is. ", "Two is! ", "Is it three?  ", "Yes"],
        ["Pi is 3.14, see example.com/?q=1!x. ", 'He said "no." ', "Then he left."],
        ["短い文。", "長い文です！？", "「はい。」", "と言う。　", "おわり"],
        ["すごい!", "本当?", "『うそ.』", "です."],
        ["# Title\n\n", "- one\n", "- two\n", "end"],
        ["\n ", "a\n"],
        ["Wait... ", "what?! ", "ok"],
    ],
)
def test_where_sentences_end(sentences):
    assert split("".join(sentences)) == sentences


@given(st.text('ab .!?。」)\n"', max_size=40))
def test_sentences_are_the_whole_text(text):
    assert "".join(split(text)) == text
    assert all(split(text))


def letters(text: str) -> list[tuple[int, int]]:
    return [(place, place + 1) for place in range(len(text))]


@pytest.mark.parametrize(
    ("limit", "cut_at", "left"),
    [
        (22, 0.7, "一番目。二番目です。三番目。四番目。六番目。"),
        (14, 0.7, "一番目。二番目です。六番目。"),
        (13, 0.7, "一番目。五番目。六番目。"),
        (12, 0.0, "四番目。五番目。六番目。"),
        (13, 1.0, "一番目。二番目です。"),
        (8, 0.5, "一番目。六番目。"),
        (7, 0.7, "一番目。"),
        (3, 0.7, "一番。"),
        (1, 0.0, "。"),
        (0, 0.7, ""),
    ],
)
def test_whole_sentences_are_lost_around_the_place(limit, cut_at, left):
    text = "一番目。二番目です。三番目。四番目。五番目。六番目。"
    assert cut_sentences(text, letters, limit, cut_at) == left
    assert cut_sentences(text, letters, len(text), cut_at) == text


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12).map(lambda ns: [" ".join("w" * n) + ". " for n in ns]),
    st.integers(0, 60),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_what_is_kept_are_first_and_last_sentences_and_none_is_lost_in_vain(sentences, limit, cut_at):
    text, sizes = "".join(sentences), [len(words(sentence)) for sentence in sentences]
    left = cut_sentences(text, words, limit, cut_at)
    assert len(words(left)) <= limit
    if sum(sizes) <= limit:
        assert left == text
        return
    if 2 * max(sizes) > limit and left == cut_tokens(text, words, limit, cut_at):
        return  # these sentences are too long for the limit; another test is about that
    num_kept = len(split(left))
    num_lost = len(sentences) - num_kept
    ways = [head for head in range(num_kept + 1) if "".join(sentences[:head] + sentences[head + num_lost :]) == left]
    assert ways, "a prefix and a suffix of whole sentences"
    if cut_at in (0, 1):
        ways = [head for head in ways if head == num_kept * cut_at]
        assert ways, "only the beginning is lost, or only the end"
    elif sizes[0] + sizes[-1] <= limit:
        ways = [head for head in ways if 0 < head < num_kept]
        assert ways, "the first and the last sentence are kept"
    room = limit - len(words(left))
    further = [[sizes[head]] * (cut_at > 0) + [sizes[head + num_lost - 1]] * (cut_at < 1) for head in ways]
    assert any(min(some) > room for some in further), "no further sentence would have fitted"


def test_the_place_that_is_lost_is_around_70_percent():
    sentences = [f"Sentence {number}. " for number in range(100)]
    left = split(cut_sentences("".join(sentences), words, 100, 0.7))
    assert left == sentences[:35] + sentences[85:]


def test_the_last_sentence_is_kept_before_others_where_it_is_longer_than_its_share():
    assert (
        cut_sentences("A. B. C. D. E. The last of all is long. ", words, 9, 0.7) == "A. B. C. The last of all is long. "
    )


def test_enormous_sentences_are_cut_by_tokens():
    text = "Title.\n" + "word " * 1000
    assert cut_sentences(text, words, 50, 0.7) == cut_tokens(text, words, 50, 0.7)
    assert cut_sentences(text, words, 50, 0.7).startswith("Title.\nword ")
    assert len(words(cut_sentences(text, words, 50, 0.7))) == 50


@given(st.text("aabbc.。 \n", max_size=60), st.integers(0, 30), st.sampled_from([0.0, 0.5, 0.7, 1.0]))
def test_no_result_is_over_the_limit_though_tokens_change_where_texts_meet(text, limit, cut_at):
    def moody(text: str) -> list[tuple[int, int]]:
        """Runs of letters are one token before a full stop only, and letters elsewhere."""
        return [match.span() for match in re.finditer(r"[abc]+(?=\.)|(?s:.)", text)]

    for shorten in (cut_tokens, cut_sentences):
        assert len(moody(shorten(text, moody, limit, cut_at))) <= limit


def test_a_character_of_several_tokens_is_not_doubled():
    def byte_tokens(text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place, character in enumerate(text) for _ in character.encode()]

    text = "ab🦦cd"
    assert {cut_tokens(text, byte_tokens, limit, 0.5).count("🦦") for limit in range(9)} == {0, 1}


@pytest.mark.parametrize("unit", ["A sentence of some words. ", "短い文です。", "word ", ".", '."', "\n", "?)"])
def test_a_very_long_text_is_cut_quickly(unit):
    text = (unit * 200_000)[:200_000] + "x"
    started = time.process_time()
    left = cut_sentences(text, letters, 5_000, 0.7)
    assert time.process_time() - started < 2
    assert 2_500 <= len(left) <= 5_000


def test_fields_are_cut_as_they_are_told():
    fields = {"instruction": ("Sum up.",), "input": ("One a b c. Two a b c. Three a b c. Four a b c. Five a b c.",)}
    fitted = fit_fields(fields, 15, words, 0.7, shorten=cut_sentences)
    assert fitted == {**fields, "input": ("One a b c. Two a b c. Five a b c.",)}
    assert fit_fields(fields, 15, words, 0.7) != fitted
    assert kept_share(fields, fitted) == pytest.approx((7 + 33) / (7 + 58))
    assert kept_share(fields, fields) == kept_share({}, {}) == 1
