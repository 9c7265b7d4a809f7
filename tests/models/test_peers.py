"""Processes that a launcher started notice each other's end, also of one that stands still, and say so in one line."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import os, signal, sys, time
from nexttoken.commands.entry import errors_on_one_line
from nexttoken.errors import UserError
from nexttoken.models import peers
from nexttoken.models.places import is_first

peers.SILENT_SECONDS = 5.0  # instead of two minutes
with errors_on_one_line(), peers.among_peers():
    if not is_first():
        {end}
    time.sleep(120 if {waits} else 0)
"""
WAYS = {
    "refused": ("raise UserError('no such file')", "stopped: no such file"),
    "stands still": (
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "is gone: it was killed or stopped, or its machine or the network",
    ),
}


def start(folder: Path, end: str, waits: bool = True) -> list[subprocess.Popen]:
    """Two processes of one machine each, as a launcher's variables say."""
    (folder / "program.py").write_text(PROGRAM.format(end=end, waits=waits))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    outer = {name: value for name, value in os.environ.items() if name != "NEXTTOKEN_LAUNCHER"}
    outer["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as a command sets it
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(folder / "program.py")]
    return [subprocess.Popen(command, env=outer | shared | {"RANK": str(rank)}, **pipes) for rank in (0, 1)]


@pytest.mark.parametrize("way", WAYS)
def test_the_other_process_ends_with_one_line(tmp_path, way):
    end, line = WAYS[way]
    first, second = start(tmp_path, end)
    try:
        _, stderr = first.communicate(timeout=90)
    finally:
        second.send_signal(signal.SIGKILL)
        second.communicate()
    assert first.returncode == 2
    assert stderr.count("\n") == 1
    assert stderr.startswith("process 1 of this run, on ")
    assert line in stderr


def test_processes_that_succeed_end_one_after_the_other_without_a_word(tmp_path):
    """The second one takes longer than the notice of an end."""
    both = start(tmp_path, "time.sleep(5)", waits=False)
    for process in both:
        _, stderr = process.communicate(timeout=90)
        assert (process.returncode, stderr) == (0, "")
