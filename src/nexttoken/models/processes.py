"""Several processes of one run, one per device: started before any heavy import, joined and gathered by torch."""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, TypeVar

from nexttoken.errors import UserError, first_five
from nexttoken.models.peers import PEERS, Peers, connecting, meet
from nexttoken.models.places import (
    LAUNCHER,
    forget_place,
    has_launcher,
    is_first,
    local_rank,
    num_local,
    num_ranks,
    rank,
)

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

POLL_SECONDS = 0.2
NOTICE_SECONDS = 3.0
WAIT = timedelta(
    days=1
)  # of one process for another: one may train a fold's last part while the rest has nothing to do
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class NeedsOwnProcess(Exception):
    """The work of a sweep's job cannot be done in the process of the sweep; nothing was begun."""

    def __init__(self, name: str | None, devices: int) -> None:
        super().__init__(name)
        self.name = name  # of the job's run
        self.devices = devices


OTHERS: list[tuple[subprocess.Popen, IO[bytes]]] = []  # the further processes, number 1 first, and their stderr


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def choose_device() -> "torch.device":
    """This process's GPU, or the CPU of a machine without one. Raises UserError for more processes than GPUs."""
    import torch

    if not has_gpu():
        return torch.device("cpu")
    if num_local() > torch.cuda.device_count():
        raise UserError(
            f"devices={num_local()}, but this machine shows {torch.cuda.device_count()} GPU to each process; set as"
            " many devices, or CUDA_VISIBLE_DEVICES= to use the CPU; with srun use --gpus-per-node, not --gpus-per-task"
        )
    return torch.device("cuda", torch.cuda.current_device() if num_ranks() == 1 else local_rank())


def launch(num_devices: int) -> None:
    """Start the same command once more for each further device, unless a launcher such as torchrun already did.

    The others print nothing. A process that fails stops all of them, and its last line is shown. A process that a
    launcher started, this function or another, ends with its launcher, also when that is killed.
    Raises UserError where torchrun or srun started another number of processes on this machine.
    """
    if "RANK" in os.environ and not OTHERS:
        end_with(int(os.environ.get(LAUNCHER, os.getppid())))
    if has_launcher():
        all_devices(num_devices)
        join()
    if num_devices == 1 or "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_devices)}
    shared |= {"LOCAL_WORLD_SIZE": str(num_devices), "GROUP_RANK": "0", LAUNCHER: str(os.getpid())}
    os.environ |= shared | {"RANK": "0", "LOCAL_RANK": "0"}
    forget_place()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name] if spec else [os.path.abspath(sys.argv[0])]
    for number in range(1, num_devices):
        environment = {**os.environ, "RANK": str(number), "LOCAL_RANK": str(number)}
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
        silent: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stderr}
        command = [sys.executable, *program, *sys.argv[1:]]
        OTHERS.append((subprocess.Popen(command, env=environment, **silent), stderr))
    atexit.register(stop_others)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the exit stops the others
    threading.Thread(target=_watch, daemon=True).start()


def work_alone() -> tuple[int, int]:
    """This process's number and the number of all; from now on it is a run of one process, on its own GPU if any."""
    place, number = rank(), num_ranks()
    if number > 1:
        if has_gpu():
            import torch

            torch.cuda.set_device(choose_device())  # the current one, which later calls choose
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        forget_place()
    return place, number


def all_devices(given: int) -> int:
    """The number of the run's processes: those of torchrun or srun on all machines, else those `given`.

    Raises UserError where a launcher has started another number than the one given, which may be that of a machine.
    """
    if not has_launcher():
        return given
    if given not in (1, num_local(), num_ranks()):
        raise UserError(
            f"devices={given}, but the launcher started {num_local()} processes on this machine, {num_ranks()} in all;"
            " leave devices out, or start as many (torchrun --nproc-per-node=..., srun --ntasks-per-node=...)"
        )
    return num_ranks()


def end_with(parent: int) -> None:
    """Have Linux kill this process as soon as `parent` ends, which a killed one could not ask for; end if it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(2)


def failure() -> str | None:
    """The last line of a failed process; waits a moment for its end, which follows the broken connection."""
    for _ in range(round(NOTICE_SECONDS / POLL_SECONDS) if OTHERS else 0):
        for number, (process, stderr) in enumerate(OTHERS, start=1):
            if status := process.poll():
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines()
                last = lines[-1] if lines else f"it was killed (status {status}), often for want of memory"
                return f"process {number} of this run stopped: {last}"
        time.sleep(POLL_SECONDS)
    return None


def stop_others() -> None:
    for process, _ in OTHERS:
        process.terminate()  # does nothing to one that has ended


def _watch() -> None:
    """End this process when another failed, even during a call that cannot be interrupted."""
    while not any(process.poll() for process, _ in OTHERS):
        time.sleep(POLL_SECONDS)
    line = failure()
    time.sleep(NOTICE_SECONDS)  # this process may be about to report the same error
    print(line, file=sys.stderr, flush=True)
    stop_others()
    os._exit(2)


def join() -> None:
    """Connect to the other processes, once; does nothing in a run of one process.

    Raises UserError where they are not as many on each machine.
    """
    import torch
    from torch import distributed

    if num_ranks() == 1 or distributed.is_initialized():
        return
    if has_gpu():
        torch.cuda.set_device(choose_device())
    if not PEERS:  # a launcher's processes have met at the start
        PEERS.append(peers := Peers(meet()))
        atexit.register(peers.take_over if is_first() else peers.leave)  # the others are stopped after the first
    store = distributed.PrefixStore("work", PEERS[-1].store)
    backend = "nccl" if has_gpu() else "gloo"
    with connecting():
        distributed.init_process_group(backend, timeout=WAIT, rank=rank(), world_size=num_ranks(), store=store)
        sizes = _gather(num_local())
    atexit.register(distributed.destroy_process_group)
    if len({*sizes}) > 1:
        raise UserError(
            f"the machines have different numbers of processes ({min(sizes)} to {max(sizes)}); start as many on each"
        )


def from_first(make: Callable[[], T]) -> T:
    """The result of `make` in the first process, in every process: searching twice may give two results."""
    if num_ranks() == 1:
        return make()
    from torch import distributed

    join()
    box: list[Any] = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather_lists(items: list[T]) -> list[T]:
    """All processes' items, those of process 0 first, in every process."""
    return [item for part in _gather(items) for item in part]


def _gather(value: Any) -> list[Any]:
    """Each process's value, in every process."""
    if num_ranks() == 1:
        return [value]
    from torch import distributed

    join()
    parts = [None] * num_ranks()
    distributed.all_gather_object(parts, value)
    return parts


def gather_rows(rows: dict[int, Any], num_rows: int) -> list[Any]:
    """All processes' answers in the order of their row indices, in every process.

    Raises UserError when a row is missing or answered twice.
    """
    parts = _gather(rows)
    indices = sorted(index for part in parts for index in part)
    if indices != list(range(num_rows)):
        missing = sorted({*range(num_rows)} - {*indices})
        raise UserError(f"{len(indices)} answers came back for {num_rows} rows (missing: {first_five(missing)})")
    together = {index: row for part in parts for index, row in part.items()}
    return [together[index] for index in indices]
