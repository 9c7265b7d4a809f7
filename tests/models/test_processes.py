"""Processes of one run end together, whichever of them is killed, and wait for each other as long as work takes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

THREE = """
import os, time
from nexttoken.models.processes import OTHERS, is_first, launch
launch(3)
if is_first():
    print(*(process.pid for process, _ in OTHERS), flush=True)
time.sleep(600)
"""
TWO = """
from nexttoken.models.processes import is_first, join, launch
launch(2)
join()
if is_first():
    import torch
    from torch.distributed.distributed_c10d import _get_default_group
    print(_get_default_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""
STOPPED = """
import time
from nexttoken.models import peers
from nexttoken.models.processes import OTHERS, is_first, join, launch
peers.SILENT_SECONDS, peers.BROKEN_SECONDS = 5.0, 3.0  # instead of two minutes and ten seconds
launch(2)
join()
if is_first():
    print(*(process.pid for process, _ in OTHERS), flush=True)
time.sleep(600)
"""


def started(tmp_path: Path, code: str, stderr: IO[str] | None = None, **environment: str) -> subprocess.Popen:
    (tmp_path / "program.py").write_text(code)
    outer = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    command, pipes = [sys.executable, str(tmp_path / "program.py")], {"stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.Popen(command, text=True, env=outer | environment, **pipes)


def lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_kill_of_any_process_ends_all_within_seconds(tmp_path, victim):
    with started(tmp_path, THREE) as first:
        pids = [first.pid, *map(int, first.stdout.readline().split())]
        assert len(pids) == 3
        time.sleep(1.5)  # the others are past their start
        os.kill(pids[victim], signal.SIGKILL)
        until = time.monotonic() + 15
        while any(map(lives, pids)) and time.monotonic() < until:
            first.poll()
            time.sleep(0.1)
        left = [pid for pid in pids if lives(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_process_that_stands_still_ends_the_run_and_a_stop_of_all_does_not(tmp_path):
    with started(tmp_path, STOPPED, stderr=(tmp_path / "stderr").open("w")) as first:
        pids = [first.pid, int(first.stdout.readline())]
        try:
            for sent in (signal.SIGSTOP, signal.SIGCONT):  # as Ctrl-Z and fg
                for pid in pids:
                    os.kill(pid, sent)
                time.sleep(8)
            assert all(map(lives, pids)), (tmp_path / "stderr").read_text()
            os.kill(pids[1], signal.SIGSTOP)
            assert first.wait(60) == 2
            until = time.monotonic() + 15
            while lives(pids[1]) and time.monotonic() < until:
                time.sleep(0.1)
            assert not lives(pids[1])
        finally:
            for pid in filter(lives, pids):
                os.kill(pid, signal.SIGKILL)
    (line,) = (tmp_path / "stderr").read_text().splitlines()
    assert line.startswith("process 1 of this run, on ")
    assert "is gone: it was killed or stopped, or its machine or the network failed" in line


def test_a_process_whose_launcher_ended_before_it_looked_ends_too(tmp_path):
    """RANK as a launcher sets it, and a launcher that is not the parent any more."""
    with started(tmp_path, THREE, RANK="1", WORLD_SIZE="3", NEXTTOKEN_LAUNCHER="1234567890") as process:
        assert process.wait(30) == 2


@pytest.mark.slow
def test_processes_wait_a_day_for_each_other(tmp_path):
    with started(tmp_path, TWO) as first:
        assert float(first.communicate(timeout=120)[0].split()[-1]) == 24 * 3600
