"""Several processes of one run, one per device: started here before any heavy work, told apart by the environment."""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

POLL_SECONDS = 0.5


def rank() -> int:
    """This process's number; 0 is the one that prints and writes."""
    return int(os.environ.get("RANK", 0))


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
    others = [_Other(number) for number in range(1, num_devices)]
    atexit.register(_stop, others)
    threading.Thread(target=_watch, args=(others,), daemon=True).start()


class _Other:
    """One further process, with what it writes to stderr."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
        environment = {**os.environ, "RANK": str(number), "LOCAL_RANK": str(number)}
        self.process = subprocess.Popen(
            [*_command(), *sys.argv[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
        )


def _command() -> list[str]:
    """How this program was started: as a script, or with -m."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.executable, *(["-m", spec.name] if spec else [os.path.abspath(sys.argv[0])])]


def _watch(others: list[_Other]) -> None:
    while True:
        time.sleep(POLL_SECONDS)
        for other in others:
            if other.process.poll() not in (None, 0):
                time.sleep(4 * POLL_SECONDS)  # the same error may be on its way out here, in better words
                other.stderr.seek(0)
                said = other.stderr.read().decode(errors="replace").strip()
                print(f"process {other.number} of this run stopped: {said[-2000:]}", file=sys.stderr, flush=True)
                _stop(others)
                os._exit(2)


def _stop(others: list[_Other]) -> None:
    for other in others:
        if other.process.poll() is None:
            other.process.terminate()
