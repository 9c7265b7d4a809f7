"""Every kind of file that is no text is named in one line with its fix; a Parquet table is read as one."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.file_kinds import say_kind
from nexttoken.data.json_lines import json_rows
from nexttoken.data.text_files import open_text
from nexttoken.errors import MissingFile, UserError

ROWS = [{"id": 1, "text": "a,b", "turns": ["x", None]}, {"id": 2, "text": None, "turns": []}]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 19473\n"


def zipped(name: str) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr(name, "x" * 100)
    return buffer.getvalue()


def tarred(name: str) -> bytes:
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def numpy_file() -> bytes:
    np.save(buffer := io.BytesIO(), np.arange(3))
    return buffer.getvalue()


def parquet(rows: list[dict]) -> bytes:
    pd.DataFrame(rows).to_parquet(buffer := io.BytesIO())
    return buffer.getvalue()


KINDS = {
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00\x11", "unzstd"),
    "bzip2": (bz2.compress(b"id,text\n"), "bunzip2"),
    "compressed with xz": (lzma.compress(b"id,text\n"), "unxz"),
    "xlsx": (zipped("[Content_Types].xml"), "CSV UTF-8"),
    "docx": (zipped("word/document.xml"), "plain text"),
    "zip archive": (zipped("train.csv"), "unzip it"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 9, "CSV UTF-8"),
    "Git LFS pointer": (POINTER, "git lfs pull"),
    "web page": (b"\xef\xbb\xbf\n <!-- x -->\n<!DOCTYPE html>\n<html></html>", "sign in"),
    "web page, such": (b"<HTML><body>Please sign in", "download the file again"),
    "Feather": (b"ARROW1\0\0\xff\xff", "CSV or JSON lines"),
    "NumPy": (numpy_file(), "CSV or JSON lines"),
    "pickle": (pickle.dumps([1]), "CSV or JSON lines"),
    "SQLite": (b"SQLite format 3\0\x10", "export"),
    "packed twice": (gzip.compress(gzip.compress(b"id,text\n1,a\n")), "gunzip"),
    "PDF": (b"%PDF-1.4\n", "extract"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7", "unlz4"),
    "compressed with lzma": (lzma.compress(b"id,text\n", format=lzma.FORMAT_ALONE), "unlzma"),
    "tar archive": (tarred("train.csv"), "tar -xf"),
    "Git LFS": (b"\xef\xbb\xbfversion http://git-media.io/v/2\n", "git lfs pull"),
    "a web page": (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html>', "sign in"),
    "XML document": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "download the file again"),
    "utf-32": ("id,text\n1,a\n".encode("utf-32"), "iconv -f utf-32"),
    "binary file": (bytes(range(256)) * 20, "expected text"),
    "utf-16le": ('{"id": 1}\n'.encode("utf-16le"), "iconv -f utf-16le"),
    "utf-16be": ("id,text\n1,a\n".encode("utf-16be"), "iconv -f utf-16be"),
}


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_with_its_fix(tmp_path: Path, kind: str, name: str) -> None:
    path, (data, fix) = tmp_path / name, KINDS[kind]
    path.write_bytes(data)
    for read in (lambda: list(json_rows(path)), lambda: read_columns(path, ["id", "text"])):
        with pytest.raises(UserError) as error:
            read()
        message = str(error.value)
        assert message.startswith(f"{path} is ")
        assert kind in message
        assert fix in message
        assert "\n" not in message
        assert ("iconv" in message) == ("iconv" in fix)


@pytest.mark.parametrize("kind", ["Git LFS pointer", "web page", "bzip2", "xlsx"])
def test_a_kind_is_named_inside_gzip_too(tmp_path: Path, kind: str) -> None:
    (path := tmp_path / "train.csv.gz").write_bytes(gzip.compress(KINDS[kind][0]))
    with pytest.raises(UserError, match=kind):
        read_columns(path, ["id", "text"])


@pytest.mark.parametrize("text", ["PAR1\n", "PAR1 and more", "BZh9 is a name", "<html5> in a text", "%PDF is a format"])
def test_text_that_only_begins_like_another_kind_stays_text(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "x.txt").write_text(text)
    with open_text(path) as file:
        assert file.read() == text


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    for name in ("a\0b", "a\ud800"):
        with pytest.raises(UserError, match="is no name of a file"), open_text(tmp_path / name):
            pass
    with pytest.raises(MissingFile, match="cannot be read"), open_text(tmp_path / "none.csv"):
        pass


def test_a_parquet_table_is_read_as_objects_and_as_cells(tmp_path: Path) -> None:
    (path := tmp_path / "train.parquet").write_bytes(parquet(ROWS))
    assert [(str(place), row) for place, row in json_rows(path)] == [
        ("train.parquet, row 1", ROWS[0]),
        ("train.parquet, row 2", ROWS[1]),
    ]
    assert read_columns(path, ["id"]) == {"id": ["1", "2"], "text": ["a,b", ""], "turns": ['["x", null]', "[]"]}


def test_a_name_that_says_another_kind_is_told_once(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    say_kind.cache_clear()
    for name, data, kind in (
        ("a.csv", parquet(ROWS), "a Parquet table"),
        ("b.csv", gzip.compress(b"id\n1\n"), "packed with gzip"),
    ):
        caplog.clear()
        for path in (
            tmp_path / name,
            tmp_path / name,
            (tmp_path / name).with_suffix(".gz" if "gzip" in kind else ".parquet"),
        ):
            path.write_bytes(data)
            read_columns(path, ["id"])
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path / name} is {kind}, and is read as such"
        ]


def test_values_that_json_lacks_are_text(tmp_path: Path) -> None:
    row = {"day": date(2026, 1, 2), "price": Decimal("1.50"), "raw": b"a\xff", "nested": {"day": [date(2026, 1, 2)]}}
    (path := tmp_path / "x.parquet").write_bytes(parquet([row]))
    assert next(json_rows(path))[1] == {
        "day": "2026-01-02", "price": "1.50", "raw": "a\ufffd", "nested": {"day": ["2026-01-02"]}
    }  # fmt: skip


def test_a_damaged_or_empty_table_is_one_line(tmp_path: Path) -> None:
    whole, path = parquet(ROWS), tmp_path / "x.parquet"
    path.write_bytes(whole[:40] + b"\xff" * 40 + whole[80:])
    with pytest.raises(UserError, match="is a damaged Parquet table"):
        list(json_rows(path))
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="is a Parquet table; convert it"):
        list(json_rows(path))
    path.write_bytes(parquet([{"id": 1}][:0]))
    with pytest.raises(UserError, match="without rows"):
        list(json_rows(path))


def test_tabs_separate_the_cells_of_a_tsv(tmp_path: Path) -> None:
    (path := tmp_path / "x.TSV").write_text('id\ttext\n1\ta,b\n2\t"c\td"\n')
    assert read_columns(path, ["id", "text"]) == {"id": ["1", "2"], "text": ["a,b", "c\td"]}
