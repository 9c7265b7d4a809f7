"""One process trains a fold: a second one is refused with its name, and ended processes hold nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from nexttoken.errors import UserError
from nexttoken.runs import lock as locks
from nexttoken.runs.lock import FoldLock
from support.interrupted import run

HOLD = """
import sys
from pathlib import Path
from nexttoken.runs.lock import FoldLock
with FoldLock(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the lock of tmp_path/run/fold0 until its input ends."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "run" / "fold0")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def refuse(lock: FoldLock) -> str:
    """The line of both refusals, at the start and at the claim."""
    lines = []
    for take in (lock.refuse_held, lock.held().__enter__):
        with pytest.raises(UserError, match="is being trained by process") as error:
            take()
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    return lines[0]


def test_a_second_process_is_told_who_trains_and_a_normal_end_leaves_nothing(tmp_path: Path, holder) -> None:
    lock = FoldLock(tmp_path / "run" / "fold0")
    assert f"process {holder.pid} on {socket.gethostname()}, since 20" in refuse(lock)
    assert f"(kill {holder.pid})" in refuse(lock)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    refuse(FoldLock(tmp_path / "link" / "fold0"))
    with FoldLock(tmp_path / "run" / "fold1").held():
        pass  # another fold
    holder.stdin.close()
    holder.wait()
    lock.refuse_held()
    with lock.held():
        assert os.listdir(tmp_path / "run") == [".fold0.lock"]
    assert os.listdir(tmp_path / "run") == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, holder) -> None:
    lock = FoldLock(tmp_path / "run" / "fold0")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert str(holder.pid) in lock.path.read_text()
    lock.refuse_held()
    with suppress(KeyboardInterrupt), lock.held():
        assert lock.path.read_text().split()[1] == str(os.getpid())
        raise KeyboardInterrupt
    assert not lock.path.exists()


def test_a_lock_of_another_machine_is_refused_with_the_file_to_remove(tmp_path: Path) -> None:
    lock = FoldLock(tmp_path / "fold0")
    lock.path.write_text("elsewhere 7 123 2026-01-02T03:04:05\n")
    line = refuse(lock)
    assert "process 7 on elsewhere, since 2026-01-02 03:04:05" in line
    assert f"if it has ended, remove {lock.path}" in line
    assert lock.path.read_text().startswith("elsewhere")
    lock.path.write_text("")  # a kill before the first word
    with lock.held():
        pass


@pytest.mark.parametrize(("start", "lives"), [("own", True), ("1", False), ("", False)])
def test_without_locks_of_the_file_system_number_and_start_decide(tmp_path, monkeypatch, start, lives) -> None:
    """A later process of the same number has another start."""
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock, pid = FoldLock(tmp_path / "fold0"), os.getpid()
    start = locks._start_of(pid) if start == "own" else start
    lock.path.write_text(f"{socket.gethostname()} {pid} {start} 2026-01-02T03:04:05\n")
    if lives:
        refuse(lock)
    else:
        with lock.held():
            pass


@pytest.mark.slow
def test_overwriting_a_fold_that_is_trained_is_refused_and_changes_nothing(server, tmp_path, holder) -> None:
    assert run(server, tmp_path) == 0
    folder = tmp_path / "lmsys" / "x"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with FoldLock(folder / "fold0").held():
        assert run(server, tmp_path, "none", 0, "overwrite=true", "seed=7") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert run(server, tmp_path, "none", 0, "overwrite=true", "seed=7") == 0
    assert json.loads((folder / "fold0" / "metrics.json").read_text())["log_loss"] > 0
    assert not list(folder.glob(".*"))


def test_each_machine_of_a_run_removes_the_lock_of_its_own_ended_process(tmp_path: Path, holder, monkeypatch) -> None:
    lock = FoldLock(tmp_path / "run" / "fold0")
    lock.remove_ended()
    refuse(lock)  # it lives
    holder.kill()
    holder.wait()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "another-machine")
        lock.remove_ended()
        assert "if it has ended, remove" in refuse(lock)
    lock.remove_ended()
    assert not lock.path.exists()
    lock.remove_ended()  # of several processes of a machine
