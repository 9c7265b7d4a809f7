"""Processes of one run end together, whichever of them is killed, and wait for each other as long as work takes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

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


def started(tmp_path: Path, code: str, **environment: str) -> subprocess.Popen:
    (tmp_path / "program.py").write_text(code)
    outer = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True, env=outer | environment
    )


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


def test_a_process_whose_launcher_ended_before_it_looked_ends_too(tmp_path):
    """RANK as a launcher sets it, and a launcher that is not the parent any more."""
    with started(tmp_path, THREE, RANK="1", WORLD_SIZE="3", NEXTTOKEN_LAUNCHER="1234567890") as process:
        assert process.wait(30) == 2


@pytest.mark.slow
def test_processes_wait_a_day_for_each_other(tmp_path):
    with started(tmp_path, TWO) as first:
        assert float(first.communicate(timeout=120)[0].split()[-1]) == 24 * 3600
