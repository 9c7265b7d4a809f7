"""A CSV comes in whole, as text, or not at all."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexttoken.data.csv_tables import numbers, read_columns, read_table, table_rows
from nexttoken.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ROW_ID = TEXT.filter(lambda text: text.strip() and "\n" not in text and "\r" not in text)


def write(folder: Path, data: str | bytes) -> Path:
    path = folder / "train.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(path: Path, columns: tuple[str, ...] = ("id", "text")) -> str:
    with pytest.raises(UserError) as error:
        read_table(path, columns)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_missing_table_of_unknown_columns_names_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a CSV; "):
        next(table_rows(tmp_path / "sample_submission.csv", []))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(ROW_ID, TEXT), min_size=1, max_size=6, unique_by=lambda row: row[0]))
def test_every_id_and_text_comes_back_unchanged(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("id", "text"), *rows])
    columns = read_columns(write(tmp_path, file.getvalue()), ["id", "text"])
    assert list(zip(columns["id"], columns["text"], strict=True)) == rows


@pytest.mark.parametrize(
    "text", ["NA", "null", "None", "nan", "NaN", "", "1e5", "True", "=1+1", "+1", "-1", "@x", " x "]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    assert read_table(write(tmp_path, f"id,text\n1,{text}\n"), ["id", "text"])["text"].tolist() == [text]


def test_ids_keep_their_zeros_and_digits(tmp_path: Path) -> None:
    ids = ["007", "7", "9007199254740993", "12345678901234567890123", "1.0"]
    assert read_table(write(tmp_path, "\n".join(["id", *ids])), ["id"])["id"].tolist() == ids


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, '\ufeffid,text\r\n1,"a\r\nb"\r\n2,c\r\n'), ["id", "text"])
    assert table.to_dict("list") == {"id": ["1", "2"], "text": ["a\r\nb", "c"]}


def test_blank_lines_are_no_rows_and_columns_keep_their_order(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "\nmore,id\n\nx,1\n\n"), ["id"])
    assert table.to_dict("list") == {"more": ["x"], "id": ["1"]}


def test_field_of_200_000_characters(tmp_path: Path) -> None:
    text = "é" * 200_000
    assert read_table(write(tmp_path, f"id,text\n1,{text}\n"), ["id"])["text"][0] == text


@pytest.mark.parametrize("data", [None, "", "\n\n", "id,text\n", "id,text"])
def test_missing_empty_and_header_only_files_name_the_folders_setting(tmp_path: Path, data: str | None) -> None:
    path = tmp_path / "train.csv" if data is None else write(tmp_path, data)
    message = refusal(path)
    assert "id, text" in message
    assert "put the right file there, or set input_dir=... to its folder" in message
    assert "kaggle" not in message, "a competition of one's own is not on Kaggle"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id,text\n1,日本語のテキスト\n".encode("cp932"), "byte 10 is 0x93): it looks like cp932"),
        ("id,text\n1,日本語のテキスト\n".encode("euc-jp"), "it looks like euc-jp"),
        ("id,text\n1,café crème\n".encode("cp1252"), "byte 13 is 0xe9): it looks like cp1252"),
        ("id,text\n1,a\n".encode("utf-16"), "byte 0 is 0xff): it looks like utf-16"),
        (b"id,text\n1," + "\ud83d".encode("utf-8", "surrogatepass"), "lone surrogates"),
        ("id,text\n1,é".encode()[:-1], "ends inside a character"),
        (b"PK\x03\x04\x14\x00\xff\xff", "zip archive"),
    ],
)
def test_wrong_encodings_are_named(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refusal(write(tmp_path, data))


def test_wrong_byte_far_into_the_file_is_counted_from_its_start(tmp_path: Path) -> None:
    start = b"\xef\xbb\xbfid,text\n1," + b"x" * 100_000
    assert f"byte {len(start)} is 0xe9" in refusal(write(tmp_path, start + "é,".encode("cp1252")))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id,text\n1,a,b\n", "train.csv:2 (3 cells, the header has 2"),
        ('id,text\n1,"a\nb"\n2\n', "train.csv:4 (1 cells, the header has 2"),
        ('id,text\n1,a\n2,"b\nc\n', "line 3: unexpected end of data"),
        ('id,text\n1,"a"b\n', "line 2: ',' expected after '\"'"),
        ("id,text,text\n1,a,b\n", "names columns twice: text"),
        ("id,txt\n1,a\n", "lacks the columns text (nearest: txt); its header is: id, txt"),
        ("id;text\n1;a\n", "its header is: id;text"),
        ("id,text\n,a\n2,b\n  ,c\n", "2 rows are faulty: train.csv:2 (id '', expected one line of text"),
        ('id,text\n"1\n2",a\n', "train.csv:2 (id '1\\n2', expected one line of text"),
        (
            "id,text\n7,a\n07,b\n7,c\n7,d\n",
            "2 rows are faulty: train.csv:4 (id 7 again, first in train.csv:2), train.csv:5 (id 7",
        ),
        (
            "id,text\n" + "".join(f"{i},a\n{i},b\n" for i in range(7)),
            "train.csv:11 (id 4 again, first in train.csv:10) and 2 more; mend",
        ),
    ],
)
def test_broken_tables_are_refused_by_line_or_id(tmp_path: Path, data: str, expected: str) -> None:
    assert expected in refusal(write(tmp_path, data))


def test_numbers_of_text_with_nan_where_there_is_none() -> None:
    table = {"id": ["x", "y"], "a": ["1", "0"], "b": ["1e-3", "1_0"], "c": ["", " 2 "]}
    np.testing.assert_array_equal(numbers(table, ["b", "a", "c"]), [[0.001, 1, np.nan], [np.nan, 0, 2]])
