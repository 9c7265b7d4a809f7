"""Faulty rows are named by place and counted, and ids that no submission can hold are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.data.row_faults import Faults, Place, RowFault, Tally, id_of, optional_text, text_of, texts_of
from nexttoken.errors import UserError

PLACE = Place("train.v1.jsonl", 4, 3)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("a.csv", 3, 2), "a.csv:3"),
        (Place("a.json", 0, 2), "a.json, row 2"),
        (Place(row=7), "row 7"),
        (Place("a.csv", 1), "a.csv:1"),
    ],
)
def test_a_place_names_the_line_or_the_row(place: Place, text: str) -> None:
    assert str(place) == text


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("a.v1.jsonl", "a.v1"),
        ("a.v2.jsonl.gz", "a.v2"),
        ("a.csv", "a"),
        ("a.json.csv", "a"),
        ("a.jsonlx", "a.jsonlx"),
        ("", "row"),
        (".jsonl", "row"),
        ("質問.json", "質問"),
    ],
)
def test_stems_tell_versions_apart(file: str, stem: str) -> None:
    assert Place(file).stem == stem


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(1, 9)), max_size=12))
def test_a_tally_counts_all_and_shows_the_first_five(items: list[tuple[str, int]]) -> None:
    tally = Tally()
    for item, count in items:
        tally.add(item, count)
    assert tally.count == sum(count for _, count in items)
    assert tally.first == [item for item, _ in items[:5]]
    more = tally.count - min(5, len(items))
    assert str(tally) == ", ".join(tally.first) + (f" and {more:,} more" if more else "")


@given(st.lists(st.booleans(), max_size=30))
def test_sound_rows_come_in_order_and_the_others_are_counted(is_sound: list[bool]) -> None:
    def double(row: int, place: Place) -> int:
        if row % 2:
            raise RowFault("odd")
        return 2 * row

    faults = Faults()
    rows = [
        (Place("x.csv", n + 2, n + 1), 2 * n if good else RowFault("cut") if n % 3 else 2 * n + 1)
        for n, good in enumerate(is_sound)
    ]
    assert list(faults.sound_rows(iter(rows), double)) == [4 * n for n, good in enumerate(is_sound) if good]
    bad = [n for n, good in enumerate(is_sound) if not good]
    assert faults.count == len(bad)
    assert faults.first == [f"x.csv:{n + 2} ({'cut' if n % 3 else 'odd'})" for n in bad[:5]]
    if not bad:
        faults.refuse("mend them")
        return
    with pytest.raises(UserError) as error:
        faults.refuse("mend them", "x.csv")
    counted = "1 row is faulty" if len(bad) == 1 else f"{len(bad)} rows are faulty"
    assert str(error.value).startswith(f"x.csv: {counted}: x.csv:{bad[0] + 2} (")
    assert str(error.value).endswith("; mend them")


def test_other_errors_are_not_swallowed() -> None:
    def broken(row: int, place: Place) -> int:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        list(Faults().sound_rows([(PLACE, 1)], broken))


def test_an_id_is_claimed_once() -> None:
    faults = Faults()
    faults.claim_id("7", Place("a.csv", 2, 1))
    faults.claim_id("07", Place("a.csv", 3, 2))
    with pytest.raises(RowFault, match=r"id 7 again, first in a\.csv:2"):
        faults.claim_id("7", Place("b.csv", 9, 8))
    with pytest.raises(RowFault, match=r"first in a\.csv:2"):  # a refused row does not become the first one
        faults.claim_id("7", Place("c.csv", 1, 1))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "007"}, "007"),
        ({"id": 10**30}, 10**30),
        ({"id": 0}, 0),
        ({"id": None, "number": 5}, 5),
        ({"number": "b", "id": "a"}, "a"),
        ({}, "train.v1-3"),
        ({"id": None}, "train.v1-3"),
        ({"id": " x "}, " x "),
        ({"id": "質問\u2028😀"}, "質問\u2028😀"),
    ],
)
def test_the_first_id_that_is_not_null(row: dict, expected: int | str) -> None:
    assert id_of(row, ("id", "number"), PLACE) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "expected one line of text"),
        (" \t\u3000", "expected one line of text"),
        ("a\nb", "expected one line of text"),
        ("a\rb", "expected one line of text"),
        ("a\ud800", "without lone surrogates"),
        (True, "its id is True, expected text or a whole number"),
        (1.0, "its id is 1.0, expected text or a whole number"),
        (float("nan"), "its id is nan"),
        (["a"], "its id is "),
        ({"a": "x" * 10_000_000}, "its id is {'a': 'xxx"),
        ("\n" * 10_000_000, "expected one line"),
    ],
    ids=range(11),
)
def test_an_id_that_no_submission_can_hold_is_refused_in_few_words(value: object, reason: str) -> None:
    with pytest.raises(RowFault, match=reason) as error:
        id_of({"id": value, "number": 5}, ("id", "number"), PLACE)
    assert len(str(error.value)) < 160


def test_texts_are_read_and_anything_else_is_named() -> None:
    assert text_of({"a": ""}, "a") == ""
    assert optional_text({"a": None}, "a") is optional_text({}, "a") is None
    assert texts_of({"a": ["x", ""]}, "a") == ("x", "")
    assert texts_of({"a": []}, "a") == ()
    for read in (text_of, texts_of):
        with pytest.raises(RowFault, match="lacks a"):
            read({"b": 1}, "a")
    for value in (1, ["x"], b"x", float("nan"), {}):
        with pytest.raises(RowFault, match=f"a is {type(value).__name__}, expected text"):
            text_of({"a": value}, "a")
    for value in ("xy", ("x",), ["x", 1], ["x", None], None):
        with pytest.raises(RowFault, match="a is not a list of texts"):
            texts_of({"a": value}, "a")
    with pytest.raises(RowFault, match="lacks a"):
        text_of({"a": None}, "a")
