"""JSON rows: each has its place, faulty ones are named, and what is written comes back."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nexttoken.data.json_lines import dump_json, json_rows, write_json_lines
from nexttoken.data.row_faults import Place, RowFault
from nexttoken.errors import UserError

ANY_TEXT = st.text(st.characters(), max_size=12)
VALUE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT | st.lists(ANY_TEXT, max_size=2)
)
ROWS = st.lists(st.dictionaries(ANY_TEXT, VALUE, max_size=3), min_size=1, max_size=5)
PAIRED = "\ud83d\ude00"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], Path]:
    def write(data: bytes | str) -> Path:
        path = tmp_path / "x.jsonl"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def read(path: Path) -> list[tuple[int, int, object]]:
    """Line, row and value of each row; of a faulty one its reason."""
    rows = [(place, str(value) if isinstance(value, RowFault) else value) for place, value in json_rows(path)]
    assert all(place.file == path.name for place, _ in rows)
    return [(place.line, place.row, value) for place, value in rows]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
@example(rows=[{"a": "\ud800\\\udfff", "\x85\u2028\u2029": "\r\n\0\ufeff"}, {}, {"n": 10**400, "f": float("-inf")}])
def test_lines_and_arrays_come_back_with_their_places(tmp_path: Path, rows: list[dict]) -> None:
    if PAIRED in json.dumps(rows, ensure_ascii=False):
        return
    path = tmp_path / "x.jsonl"
    write_json_lines(iter(rows), path)
    assert read(path) == [(number, number, row) for number, row in enumerate(rows, start=1)]
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(rows)  # also for readers that end lines at U+2028
    for indent in (None, 1):
        path.write_text(dump_json(rows, indent), encoding="utf-8")
        assert [row for *_, row in read(path)] == rows
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + dump_json(rows).encode()))
    assert [row for *_, row in read(path)] == rows


def test_blank_lines_count_as_lines_and_not_as_rows(write) -> None:
    assert read(write('\n\r\n{"a": 1}\r\n \t\n\u2028\n{"a": 2}')) == [(3, 1, {"a": 1}), (6, 2, {"a": 2})]


def test_an_array_places_each_element_on_its_line(write) -> None:
    text = '\n[\n {"a": "\\n"},\n {"a":\n 2}, {"a": 3}\n,{"a": 4}\n]\n'
    assert read(write(text)) == [(3, 1, {"a": "\n"}), (4, 2, {"a": 2}), (5, 3, {"a": 3}), (6, 4, {"a": 4})]
    assert [str(place) for place, _ in json_rows(write('[{"a": 1}, {"a": 2}]'))] == ["x.jsonl, row 1", "x.jsonl, row 2"]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "[\n]"])
def test_an_empty_array_has_no_rows(write, text: str) -> None:
    assert read(write(text)) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON: Expecting property name"),
        ('{"a": 1}{"a": 2}', "not JSON: Extra data"),
        ('{"a": "\t"}', "not JSON: Invalid control character"),
        ('{"a": 1' + "0" * 5000 + "}", "not JSON: a number of more than 4,300 digits"),
        ('{"a":' * 100_000, "not JSON: nested too deeply"),
        ("[[1], 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("null", "not a JSON object"),
        ("NaN", "not a JSON object"),
    ],
    ids=range(9),
)
def test_a_faulty_line_is_a_fault_between_sound_rows(write, line: str, reason: str) -> None:
    first, faulty, last = read(write(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n'))
    assert (first, last) == ((1, 1, {"a": 1}), (3, 3, {"a": 3}))
    assert faulty[:2] == (2, 2)
    assert faulty[2].startswith(reason)
    assert len(faulty[2]) < 120


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "is empty: expected rows; download or convert it again"),
        ("\n \n\t", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("[", "line 1, row 1: Expecting value"),
        ('[\n{"a": 1},\n{"a": }]', r"line 3, row 2: Expecting value.*; mend it, or download"),
        ('[{"a": 1}', r"line 1, row 1: expected , or \] after this element; the file is cut"),
        ('[{"a": 1} {"a": 2}]', r"line 1, row 1: expected , or \]"),
        ('[{"a": 1}]\n\n{"a": 2}', "line 3: text behind the end of the array; expected one array or one object a line"),
        ("[" * 100_000, "line 1, row 1: nested too deeply; mend it"),
        ("[1" + "0" * 5000 + "]", "line 1, row 1: a number of more than 4,300 digits; mend it"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "is not UTF-8 .byte 16 is 0xe9.*cp1252"),
        (b'{"a": "\xed\xa0\x80"}\n', "holds lone surrogates"),
        (b'{"a": "\xe3\x81', "ends inside a character; download it again"),
        (b"PK\x03\x04\xff", "is a zip archive; unzip it"),
        (gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "is damaged .*download it again"),
        (gzip.compress(b'{"a": "\xff"}\n', mtime=0), "does not unpack to UTF-8; unpack it"),
        (gzip.compress(b"{}\n", mtime=0) + b"tail", "is damaged"),
        (b"\x1f\x8b", "is damaged"),
    ],
)
def test_a_broken_file_is_one_line_with_the_place_and_the_fix(write, data: bytes | str, reason: str) -> None:
    path = write(data)
    with pytest.raises(UserError, match=reason) as error:
        list(json_rows(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_rows_before_a_wrong_byte_are_read_and_the_file_is_not_held_in_memory(write) -> None:
    rows = json_rows(write(b'{"a": 1}\n' * 10_000 + b"\xff\n"))
    assert next(rows) == (Place("x.jsonl", 1, 1), {"a": 1})
    with pytest.raises(UserError, match="byte 90000 is 0xff"):
        list(rows)


def test_missing_files_folders_and_long_names_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"cannot be read \(.*\): expected a file of rows"):
            list(json_rows(path))


def test_values_without_json_are_refused_where_asked() -> None:
    assert dump_json({"a": float("nan")}) == '{"a": NaN}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": float("nan")}, allow_nan=False)
    assert dump_json(["é", "\ud800", "\\\udfff"]) == '["é", "\\ud800", "\\\\\\udfff"]'
