"""Files are written whole or not at all, found by name in the order given, and read with errors of one line."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nexttoken.data import whole_files
from nexttoken.data.files import (
    hash_text,
    matching,
    read_json,
    read_yaml,
    to_yaml,
    whole_file,
    write_json,
    write_text,
)
from nexttoken.data.whole_files import remove, scratch_folder, whole_folder
from nexttoken.errors import UserError, first_five, nearest

ANY_TEXT = st.text(st.characters(), max_size=20)  # surrogates and controls among them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
PAIRED = "\ud83d\ude00"  # two halves, which every reader joins


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as part:
            part.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"x.txt": "old"}


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.txt"
    write_text("old", path)
    with path.open() as reader, whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old\n"
        inode = os.fstat(reader.fileno()).st_ino
        assert part.parent == path.parent  # a rename between two disks would not be atomic
    assert path.read_text() == "new"
    assert path.stat().st_ino != inode  # another file in its place: who reads the old one reads it to its end
    assert os.listdir(path.parent) == ["x.txt"]


def test_a_writer_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "x.txt"):
        pass
    assert not list(tmp_path.iterdir())


WRITING = """
import sys
from pathlib import Path
from nexttoken.data.whole_files import whole_file, whole_folder
folder = Path(sys.argv[1])
for number in range(10**9):
    text = str(number % 10) * 100_000
    with whole_file(folder / "x.txt") as part:
        part.write_text(text)
    with whole_folder(folder / "y") as part:
        (part / "1").write_text(text)
        (part / "2").write_text(text)
    if not number:
        print(flush=True)
"""


def test_kills_at_random_moments_leave_neither_half_files_nor_litter(tmp_path: Path) -> None:
    moments = random.Random(0)
    for _ in range(6):
        command = [sys.executable, "-c", WRITING, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.1))
            writer.kill()
        whole = [path.read_text() for path in tmp_path.rglob("[x12]*") if ".part" not in str(path)]
        assert whole
        assert all(len(text) == 100_000 and len(set(text)) == 1 for text in whole)
        assert len({path.read_text() for path in (tmp_path / "y").glob("*")}) <= 1, "of two writes"
    whole_files._remove_litter.cache_clear()
    write_text("end", tmp_path / "x.txt")
    assert {path.name for path in tmp_path.iterdir()} <= {"x.txt", "y"}


@pytest.mark.parametrize("writer", [whole_file, whole_folder, scratch_folder])
def test_parts_of_ended_processes_go_and_those_of_running_ones_stay(tmp_path: Path, writer: Callable) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    here, day = whole_files._host(), whole_files.LITTER_SECONDS
    gone = [f".a.csv.{ended.pid}.part", f".b.{ended.pid}@{here}.part", f".c.{2**70}.part", ".old.1@another.part"]
    kept = [f".a.{os.getppid()}.part", f".b.{os.getppid()}@{here}.part", f".c.{ended.pid}@another.part", ".d.part"]
    for name in gone + kept:
        (tmp_path / name).write_text("x")
    (tmp_path / gone[1]).unlink()
    (tmp_path / gone[1] / "inner").mkdir(parents=True)
    os.utime(tmp_path / gone[3], (time.time() - 2 * day, time.time() - 2 * day))
    with writer(tmp_path / "x") as part:
        part.touch()
    assert {path.name for path in tmp_path.iterdir()} - {"x"} == set(kept)


def test_a_folder_is_replaced_whole_and_where_a_link_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").write_text("old")
    (tmp_path / "x").symlink_to("disk")
    with suppress(KeyboardInterrupt), whole_folder(tmp_path / "x") as part:
        (part / "new").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "x" / "old").read_text() == "old"
    with whole_folder(tmp_path / "x") as part:
        (part / "deep").mkdir()
        (part / "deep" / "new").write_text("new")
    assert (tmp_path / "x").is_symlink()
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert names == {"disk", "x", "disk/deep", "disk/deep/new"}


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path: Path, monkeypatch) -> None:
    """A loss of power leaves whole files: each is synced, renamed, and its folder synced, in this order."""
    calls: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        whole_files.os, "fsync", lambda one: (calls.append(os.readlink(f"/proc/self/fd/{one}")), sync(one))
    )
    monkeypatch.setattr(whole_files.os, "replace", lambda old, new: (calls.append("rename"), rename(old, new)))
    write_text("new", tmp_path / "x.txt")
    assert [Path(call).suffix or call for call in calls] == [".part", "rename", str(tmp_path)]
    calls.clear()
    with whole_folder(tmp_path / "y") as part:
        (part / "z.bin").write_text("new")
    assert [Path(call).suffix or call for call in calls] == [".bin", ".part", "rename", str(tmp_path)]


def test_what_cannot_be_removed_is_an_error(tmp_path: Path, monkeypatch) -> None:
    remove(tmp_path / "absent")
    inner = tmp_path / "x" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "file").chmod(0o400)
    inner.chmod(0o500)
    (tmp_path / "x" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    remove(tmp_path / "x")
    assert os.listdir(tmp_path) == ["kept"]
    (tmp_path / "kept" / "file").write_text("x")
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(OSError, match="Read-only file system"):
        remove(tmp_path / "kept")


@pytest.mark.parametrize("value", [{"loss": float("nan")}, {"loss": float("inf")}, {"loss": {1, 2}}])
def test_values_that_json_lacks_write_nothing(tmp_path: Path, value: object) -> None:
    write_json({"loss": 1.0}, tmp_path / "x.json")
    with pytest.raises((ValueError, TypeError)):
        write_json(value, tmp_path / "x.json")
    assert os.listdir(tmp_path) == ["x.json"]
    assert read_json(tmp_path / "x.json") == {"loss": 1.0}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(ANY_TEXT, JSON, max_size=3))
@example(value={"\ud800": "\udfff", "big": 2**200, "line": "\r\n\u2028\x85\0"})
def test_json_comes_back_unchanged(tmp_path: Path, value: dict) -> None:
    if PAIRED in json.dumps(value, ensure_ascii=False):
        return
    write_json(value, tmp_path / "x.json")
    read = read_json(tmp_path / "x.json")
    assert read == json.loads(json.dumps(value))
    assert list(read) == list(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read as JSON .*expected a file written by train.py"),
        (b'{"a": 1', "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON .*utf-8"),
        (b"[" * 100_000, "cannot be read as JSON .*recursion"),
        (b'{"a":' * 100_000, "cannot be read as JSON .*recursion"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "cannot be read as JSON"),
        (b"[1]", "holds list, expected a JSON object"),
        (b"null", "holds NoneType, expected a JSON object"),
    ],
    ids=["empty", "cut", "encoding", "deep list", "deep object", "digits", "list", "null"],
)
def test_broken_json_is_one_line_with_the_file(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as error:
        read_json(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"none\.json cannot be read as JSON"):
        read_json(tmp_path / "none.json")


@given(text=ANY_TEXT, second=ANY_TEXT)
@example(text="a\x85\nb", second="\x85")
@example(text="\n leading\n\n", second="trailing \n  \n")
@example(text="\t#: - a\r\nb", second="\ufeff\n\u2028")
def test_yaml_comes_back_unchanged(text: str, second: str) -> None:
    value = {"z": text, "a": {"list": [second, text]}, "n": None, "half": 0.1, "off": "no", "day": "2020-01-01"}
    read = yaml.safe_load(to_yaml(value))
    assert read == value
    assert list(read) == list(value)


def test_yaml_shows_prompts_line_by_line_and_characters_as_they_are() -> None:
    assert to_yaml({"template": "質問\n{{ a }}\n", "b": 1}) == "template: |\n  質問\n  {{ a }}\nb: 1\n"


def test_hashes_tell_texts_apart_and_take_every_text() -> None:
    texts = ["", "a", "a\0", "\ud800", "\udfff", "\ufffd", "é", "e\u0301"]
    assert len({hash_text(text) for text in texts}) == len(texts)
    assert hash_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "packed.csv.gz", "sub/c.jsonl", "質問.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        (["b.jsonl", "a.jsonl"], ["b.jsonl", "a.jsonl"]),
        (["b.jsonl", "*.jsonl", "b.jsonl"], ["b.jsonl", "a.jsonl", "質問.jsonl"]),
        (["[ab].jsonl"], ["a.jsonl", "b.jsonl"]),
        (["packed.csv"], ["packed.csv.gz"]),
        (["sub/*"], ["c.jsonl"]),
        (["*"], ["a.jsonl", "b.jsonl", "packed.csv.gz", "質問.jsonl"]),
        (["*.parquet", "?"], []),
        ([], []),
    ],
)
def test_files_are_found_in_the_order_of_their_names_each_once(folder: Path, names, expected: list[str]) -> None:
    assert [path.name for path in matching(folder, names, "training file")] == expected


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["none.jsonl"], "has no file none.jsonl: expected training files; put it there"),
        (["sub"], "has no file sub"),
        (["a.jsonl", "x" * 300], "is no name or pattern of training files .*write train.jsonl"),
        ([""], "'' is no name or pattern"),
        (["."], "'.' is no name or pattern"),
        (["a\0b"], "has no file a"),
        (["/etc/hosts"], "expected the name of a training file below .*write input_dir=/etc"),
        (None, "are named None: expected a list of names"),
        (3, "are named 3: expected a list"),
        ({"a.jsonl": 1}, "expected a list of names"),
        (["a.jsonl", 7], "expected a list of names"),
        (b"a.jsonl", "expected a list of names"),
    ],
)
def test_names_without_a_file_are_one_line_with_the_fix(folder: Path, names, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        matching(folder, names, "training file")
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "sub" / "a.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"training files of one name .*sub/a\.jsonl.*; rename one of them"):
        matching(folder, ["a.jsonl", "sub/a.jsonl"], "training file")


@given(st.lists(st.integers(), max_size=20))
def test_the_first_five_and_the_number_of_the_others(items: list[int]) -> None:
    shown, _, more = first_five(iter(items)).partition(" and ")
    assert shown == ", ".join(map(str, items[:5]))
    assert more == (f"{len(items) - 5} more" if len(items) > 5 else "")


def test_the_nearest_name_or_all_that_are_known() -> None:
    assert nearest("lama3", ["llama3", "gemma"]) == "did you mean 'llama3'?"
    assert nearest("xyz", {"llama3": 1, "gemma": 2}) == "known: gemma, llama3"
    assert nearest("", []) == "known: "


@given(st.dictionaries(ANY_TEXT, JSON, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_comes_back_unchanged(tmp_path: Path, value: dict) -> None:
    path = tmp_path / "config.yaml"
    try:
        path.write_text(to_yaml({**value, "again": [value, value]}), encoding="utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which no configuration can hold
        return
    assert read_yaml(path) == {**value, "again": [value, value]}


NINES = (f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12))
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(NINES)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "a: &a {b: 1}\nc: {<<: *a}",
        "a: &a x\nb: *a",
        "a: 2020-01-01",
        "a: !!binary aGk=",
        "a: !!set {x: null}",
        "a: !!python/name:os.system",
        "? [a]\n: 1",
        "a: " + "[" * 5000,
        "a: " + "9" * 5000,
        "a: 1\n---\nb: 2",
        "a: " + "x " * 15_000_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_configuration_that_no_run_wrote_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(UserError, match=rf"^{path} .*train this fold again") as error:
        read_yaml(path)
    assert time.process_time() - start < 5
    assert "\n" not in str(error.value)
