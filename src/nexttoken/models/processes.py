"""Several processes of one run, one per device: started here before any heavy work, told apart by the environment."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import IO

POLL_SECONDS = 0.2
NOTICE_SECONDS = 3.0


@cache  # Lightning takes WORLD_SIZE out of the environment when it has trained
def rank() -> int:
    """This process's number; 0 is the one that prints and writes."""
    return int(os.environ.get("RANK", 0))


@cache
def num_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    return rank() == 0


def launch(num_devices: int) -> None:
    """Start the same command once more for each further device, unless a launcher such as torchrun already did.

    The others print nothing. Whichever process fails stops all of them; what a silent one said is shown.
    """
    if num_devices == 1 or "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_devices), "NODE_RANK": "0"}
    os.environ |= shared | {"RANK": "0", "LOCAL_RANK": "0"}
    rank.cache_clear()
    num_ranks.cache_clear()
    OTHERS.extend(Other.start(number) for number in range(1, num_devices))
    atexit.register(stop_others)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated run takes the others along
    threading.Thread(target=_watch, daemon=True).start()


def failure() -> str | None:
    """What a failed process said last; waits a moment for its end, which comes after the broken connection."""
    for _ in range(round(NOTICE_SECONDS / POLL_SECONDS) if OTHERS else 0):
        if failed := [other for other in OTHERS if other.process.poll() not in (None, 0)]:
            return f"process {failed[0].number} of this run stopped: {failed[0].last_words}"
        time.sleep(POLL_SECONDS)
    return None


def stop_others() -> None:
    for other in OTHERS:
        if other.process.poll() is None:
            other.process.terminate()


@dataclass(frozen=True)
class Other:
    """One further process, with what it writes to stderr."""

    number: int
    process: subprocess.Popen
    stderr: IO[bytes]

    @classmethod
    def start(cls, number: int) -> "Other":
        environment = {**os.environ, "RANK": str(number), "LOCAL_RANK": str(number)}
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stderr}
        return cls(number, subprocess.Popen([*_command(), *sys.argv[1:]], env=environment, **silent), stderr)  # type: ignore[call-overload]

    @property
    def last_words(self) -> str:
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it was killed (status {self.process.poll()}), often for want of memory"


OTHERS: list[Other] = []


def _command() -> list[str]:
    """How this program was started: as a script, or with -m."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.executable, *(["-m", spec.name] if spec else [os.path.abspath(sys.argv[0])])]


def _watch() -> None:
    """End this process when another failed, even where it waits for that one in a call that cannot be interrupted."""
    while not any(other.process.poll() not in (None, 0) for other in OTHERS):
        time.sleep(POLL_SECONDS)
    line = failure()
    time.sleep(NOTICE_SECONDS)  # the same error may be on its way out of here, as its own line
    print(line, file=sys.stderr, flush=True)
    stop_others()
    os._exit(2)
