"""Faults of the machine as libraries report them: one line with the path or the need, and what to change."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nexttoken.commands.terminal import fault_of_machine
from nexttoken.errors import UserError
from nexttoken.models.allocator import LIBRARIES_BYTES
from nexttoken.models.saved import model_folder

FULL = Path("/dev/full")  # a file that takes nothing
IS_LINUX = sys.platform == "linux"
MEMORY = (
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
)


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_too_little_memory_is_called_so(error):
    assert fault_of_machine(error).startswith("out of memory (")
    assert ("ulimit -u" if "thread" in str(error) else "batch_tokens") in fault_of_machine(error)


def test_a_fault_of_a_file_is_found_under_another_error():
    """As TensorBoard's logger raises it."""
    error = ValueError("you tried to log nan which is currently not supported")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "fold0/events")
    line = "fold0/events: No space left on device; make room there or give another path"
    assert fault_of_machine(error).startswith(line)


def test_a_failed_connection_is_no_path():
    assert fault_of_machine(ConnectionRefusedError(111, "Connection refused")).startswith("the network failed (")


FROM_LIBRARY = ImportError("no CUDA")
FROM_LIBRARY.__cause__ = OSError("libcudart.so.12: cannot open shared object file")
FROM_FILE = ValueError("a bug")
FROM_FILE.__cause__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")


@pytest.mark.parametrize("error", [ValueError("bug"), KeyError("out of memory"), FROM_LIBRARY, FROM_FILE], ids=repr)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    assert fault_of_machine(error) is None


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_under_a_tokenizer_is_one_line(scratch, tmp_path):
    tokenizer = scratch.tokenizer.backend_tokenizer
    with pytest.raises(Exception, match="os error 28") as caught:
        tokenizer.save(str(FULL))
    assert fault_of_machine(caught.value).startswith("a file could not be read or written (No space left on device")
    with (
        pytest.raises(UserError, match=r"model could not be written \(No space left.*Make room"),
        model_folder(tmp_path / "model"),
    ):
        tokenizer.save(str(FULL))
    assert not list(tmp_path.iterdir())


def limited(repository: Path, num_bytes: int, *command: str) -> subprocess.CompletedProcess:
    """A command in the repository with at most so many bytes of address space."""
    whole = ["sh", "-c", f'ulimit -v {-(-num_bytes // 1024)}; exec "$@"', "sh", sys.executable, *command]
    return subprocess.run(whole, cwd=repository, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not IS_LINUX, reason="address space is limited on Linux")
@pytest.mark.parametrize("command", [("train.py", "fold=0"), ("-m", "nexttoken", "report", "output/lmsys")])
def test_a_limit_that_the_libraries_exceed_is_refused_before_they_load(repository, command):
    done = limited(repository, 300_000_000, *command)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(r"a process may use 0.30 GB of address space \(ulimit -v\).* ulimit -v unlimited", line)


@pytest.mark.slow
@pytest.mark.skipif(not IS_LINUX, reason="address space is limited on Linux")
def test_a_training_under_a_limit_ends_well_or_with_one_line(repository, tmp_path):
    ends = []
    for share in (1.0, 1.1, 1.2):
        settings = ("limit_rows=40", "logger=none", "batch_tokens=100000", "model.scratch.hidden_size=256")
        command = ("train.py", "fold=0", "debug=fast", f"name=x{share}", *settings, f"output_dir={tmp_path}")
        done = limited(repository, int(share * LIBRARIES_BYTES), *command)
        print(share, done.returncode, done.stderr)
        ends.append(done.returncode)
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert "out of memory" in done.stderr
    assert 0 in ends
