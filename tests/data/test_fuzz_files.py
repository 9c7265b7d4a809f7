"""Files that disks, editors, downloads and strangers have altered are read, or refused in one line, within seconds."""

import random
from zlib import crc32

import pytest

from conftest import save_small_base
from fuzz.rule import BrokenRule, obey
from fuzz.target import names_of
from support.mutations import mutated
from support.read_files import Reader, sound_readers
from support.read_run_files import base_readers, run_readers


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("files")
    return sound_readers(folder) | run_readers(folder / "run") | base_readers(save_small_base(folder / "base"))


def fault_of(reader: Reader, data: bytes) -> str:
    """The way in which reading `data` in the place of the sound file goes wrong; "" where it goes well."""
    path, read = reader
    path.write_bytes(data)
    try:
        obey(lambda: read(path), *names_of(path))
    except BrokenRule as fault:
        return str(fault)
    return ""


def faults(readers: dict[str, Reader], first: int, last: int) -> list[str]:
    """The faults of files `first` to `last` of every reader; each file depends on its name and number alone."""
    found = []
    for name, reader in readers.items():
        sound = reader[0].read_bytes()
        try:
            for number in range(first, last):
                data = mutated(random.Random(crc32(f"{name} {number}".encode())), sound)
                if fault := fault_of(reader, data):
                    found.append(f"{name} {number}: {fault[:200]!a} from {data[:80]!r}")
        finally:
            reader[0].write_bytes(sound)
    return found


def test_sound_files_are_read(readers: dict[str, Reader]) -> None:
    for name, (path, read) in readers.items():
        assert obey(lambda path=path, read=read: read(path)), name


def test_altered_files_are_read_or_refused_in_one_line(readers: dict[str, Reader]) -> None:
    assert faults(readers, 0, 10) == []


GIANTS = {"deep lists": b"[" * 10**6, "deep objects": b'{"a":' * 10**6, "one cell": b'"' + b"a" * 30_000_000 + b'"'}


@pytest.mark.slow
@pytest.mark.parametrize("giant", GIANTS)
def test_giant_cells_and_depths_are_read_or_refused_in_seconds(readers: dict[str, Reader], giant: str) -> None:
    for name, (path, read) in readers.items():
        sound = path.read_bytes()
        try:
            assert fault_of((path, read), GIANTS[giant]) == "", name
        finally:
            path.write_bytes(sound)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_thousand_altered_files_are_read_or_refused_in_one_line(readers: dict[str, Reader]) -> None:
    assert faults(readers, 10, 10 + 20_000 // len(readers) + 1) == []
