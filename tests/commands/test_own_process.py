"""A job in a process of its own: what it printed, its error on a line, and its end with the sweep."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nexttoken.commands.own_process import Call
from support.training import TINY


def call(code: str, **environment: str) -> tuple[str, str]:
    ended = Call("seed=1", (sys.executable, "-c", code), os.getcwd(), 1, environment)()
    return ended.output, ended.error


def test_its_output_comes_back_and_its_progress_is_shown_with_the_title(capfd):
    code = "import os, sys; print('run: ' + os.environ['WHERE']); print('half\\ndone', file=sys.stderr)"
    assert call(code, WHERE="a/x/fold0") == ("run: a/x/fold0\n", "")
    assert capfd.readouterr().err == "seed=1: half\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import sys; sys.exit('fold=7 does not exist')", "fold=7 does not exist"),
        ("raise SystemExit(2)", "its process ended with status 2"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "its process was killed (SIGKILL), often for want of memory"),
    ],
)
def test_every_end_but_a_good_one_is_an_error_on_one_line(code, error):
    assert call(code) == ("", error)


@pytest.mark.slow
def test_a_job_on_several_devices_trains_and_is_known_on_one(repository, tmp_path):
    overrides = [*TINY, "logger=none", "trainer.accelerator=cpu", f"output_dir={tmp_path}"]
    call = [sys.executable, "train.py", "-m", "fold=0", "trainer.devices=2,1", *overrides]
    done = subprocess.run(call, capture_output=True, text=True, cwd=repository, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (line for line in done.stdout.splitlines() if line.startswith("job "))
    assert "log loss" in first
    assert "finished before" not in first
    assert "trainer.devices=1: log loss" in second
    assert "finished before, run: " in second, "devices are no setting of the result"
    assert len(list(tmp_path.glob("lmsys/*/fold0/metrics.json"))) == 1


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on_when_typed_in_another_way(repository, tmp_path):
    """SIGKILL in the middle of the first job; then the same settings in another order and under another name."""
    fixed = [*TINY, "logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=12", f"output_dir={tmp_path}"]
    grid = ["sweep.own_process=true", "fit.checkpoint_steps=1", "fold=0,1", "seed=0"]
    sweep = subprocess.Popen(
        [sys.executable, "train.py", "-m", *fixed, *grid],
        cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoint, lock = (tmp_path / "lmsys" / "tiny" / name for name in ("fold0/checkpoints/last.ckpt", ".fold0.lock"))
    while not checkpoint.exists():
        assert sweep.poll() is None
        time.sleep(0.05)
    pid = int(lock.read_text().split()[1])
    assert pid != sweep.pid, "the job is a process of its own"
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    assert_ends(pid)
    assert not (checkpoint.parent.parent / "metrics.json").exists()
    again = subprocess.run(
        [sys.executable, "train.py", "-m", *reversed(grid[1:]), *fixed, "name=other"],
        cwd=repository, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(it has the same settings, so name=other is not used)") == 2
    assert [path.name for path in (tmp_path / "lmsys").iterdir()] == ["tiny"]
    assert len(list(tmp_path.glob("lmsys/tiny/fold[01]/metrics.json"))) == 2


def assert_ends(pid: int) -> None:
    deadline = time.monotonic() + 20
    with suppress(FileNotFoundError, ProcessLookupError):
        while "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline, "the job outlived its sweep"
            time.sleep(0.1)
