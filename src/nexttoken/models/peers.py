"""Processes of a run, on one machine or several: each notices another one that has ended or stands still.

Each process writes a number that grows to the store of torch's rendezvous, and reads those of the others. One that
fails leaves its last words there. The connections of training cannot do this: they wait as long as work takes.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nexttoken.errors import UserError, first_five, one_line
from nexttoken.models.places import has_launcher, num_ranks, rank, speaks

if TYPE_CHECKING:
    from torch.distributed import Store

COME = timedelta(minutes=10)  # for all processes to start, and once more for all of them to connect
BEAT_SECONDS = 1.0
BROKEN_SECONDS = 10.0  # without a beat, of a process whose connection is broken
SILENT_SECONDS = 120.0  # without a beat, of any other: a library may hold Python's lock for long
NOTICE_SECONDS = 3.0  # in which every process reads the last words of another
GONE = (
    "is gone: it was killed or stopped, or its machine or the network failed; the same command goes on where this one"
    " stopped"
)


class Peers:
    """The processes of the run: their machines, their beats, and how those that have ended did so."""

    def __init__(self, store: "Store") -> None:
        """Come to the store, and wait for all others. Raises UserError for those that do not come."""
        self.store = store
        self._own = store.clone()  # type: ignore[attr-defined]  # a store serves one thread
        self._rank = rank()
        self._keys = [f"peer/{number}" for number in range(num_ranks())]
        self._number = 0
        self.seen: list[dict[str, Any]] = []
        self._beat()
        try:
            self._own.wait(self._keys, COME)
        except Exception:
            missing = [number for number, key in enumerate(self._keys) if not self._own.check([key])]
            raise UserError(
                f"{len(missing)} of {num_ranks()} processes did not come within {_minutes(COME)} (number"
                f" {first_five(missing)}); "
                + ("start the same command on every machine" if has_launcher() else "start the same command again")
            ) from None
        self.moved = [time.monotonic()] * num_ranks()  # when each was seen to beat last
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self.looked = time.monotonic()  # the last look
        self.found = ""  # by it: a line about another process
        for work in (self._keep_beating, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def _beat(self, end: str | None = None) -> None:
        """Say that this process lives, or how it has ended: "" for a success."""
        self._number += 1
        own = {"beat": self._number, "host": socket.gethostname(), "end": end}
        self._own.set(self._keys[self._rank], json.dumps(own))

    def _look(self) -> None:
        """Read what all others say. Raises an error of torch where the store is gone."""
        told = [json.loads(text) for text in self._own.multi_get(self._keys)]
        if time.monotonic() - self.looked > BROKEN_SECONDS:  # this one stood still itself, as after Ctrl-Z
            self.moved = [time.monotonic()] * len(told)
        for number, (now, before) in enumerate(zip(told, self.seen or told, strict=True)):
            if now != before:
                self.moved[number] = time.monotonic()
        self.seen = told

    def _ended(self, silent_seconds: float) -> str | None:
        """A line about another process that failed or has been silent for so long; None while all live."""
        for number, one in enumerate(self.seen):
            name = f"process {number} of this run, on {one['host']},"
            if number == self._rank or one["end"] == "":
                continue
            if one["end"]:
                return f"{name} stopped: {one['end']}"
            if time.monotonic() - self.moved[number] > silent_seconds:
                return f"{name} {GONE}"
        return None

    def _keep_beating(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS):
            self.found = self.found or self._turn(SILENT_SECONDS) or ""

    def _watch(self) -> None:
        """End this process when another failed, even during a call that cannot be interrupted."""
        while not self._is_over.wait(BEAT_SECONDS):
            if not (self._noticed() and not self._is_over.wait(NOTICE_SECONDS)):  # it may report an error itself
                continue
            if line := self._noticed():  # not after a standstill of this machine
                if speaks():
                    print(line, file=sys.stderr, flush=True)
                else:
                    time.sleep(2 * NOTICE_SECONDS)  # else torchrun would end the one that speaks before it has
                os._exit(2)

    def _noticed(self) -> str | None:
        """A line that was found, or one that the store has not answered for long: a call waits for a lost machine."""
        return self.found or (_no_store() if time.monotonic() - self.looked > SILENT_SECONDS else None)

    def _turn(self, silent_seconds: float, end: str | None = None) -> str | None:
        """Beat and look once; a line about another process as in `_ended`."""
        if not self._lock.acquire(timeout=silent_seconds):  # the other thread waits for the store
            return _no_store()
        try:
            self._beat(end)
            self._look()
            self.looked = time.monotonic()
        except Exception:
            return _no_store()
        finally:
            self._lock.release()
        return self._ended(silent_seconds)

    def failure(self) -> str | None:
        """A line about the process whose end broke this one's connection; None where all live."""
        until = time.monotonic() + BROKEN_SECONDS + 2 * BEAT_SECONDS
        while time.monotonic() < until:
            if line := self._turn(BROKEN_SECONDS):
                return line
            time.sleep(BEAT_SECONDS)
        return None

    def leave(self, words: str = "") -> None:
        """Tell the others that this process ends, after a failure with its last `words`, and let them read it.

        After a success process 0 ends last: it may be the one that holds the store.
        """
        self._is_over.set()
        if self._lock.acquire(timeout=NOTICE_SECONDS):
            with suppress(Exception):  # the store may be gone, and who listened, too
                self._beat(words)
            self._lock.release()
        if words:
            time.sleep(NOTICE_SECONDS)
        until = time.monotonic() + SILENT_SECONDS
        while self._rank == 0 and not words and time.monotonic() < until:
            if self._turn(SILENT_SECONDS, words) or all(one["end"] is not None for one in self.seen):
                break
            time.sleep(BEAT_SECONDS / 4)

    def take_over(self) -> None:
        """Leave it to the main thread to report what it finds."""
        self._is_over.set()


PEERS: list[Peers] = []  # of this process; empty where it is the only one


@contextmanager
def among_peers() -> Iterator[None]:
    """A context for the work of a command: all processes of a launcher end together, and one line says why.

    Raises UserError for processes that do not come, and in place of an error that another process's end has caused.
    """
    if not has_launcher() or num_ranks() == 1:
        yield
        return
    PEERS.append(peers := Peers(meet()))
    try:
        yield
    except UserError as error:
        peers.leave(str(error))
        raise
    except Exception as error:
        peers.take_over()
        if isinstance(error, RuntimeError) and (line := peers.failure()):  # torch's, of a broken connection
            raise UserError(line) from None
        peers.leave(f"{type(error).__name__}: {one_line(error, 300)}")
        raise
    except BaseException:  # Ctrl-C, or the launcher, which ends all processes of its machine after one that failed
        peers.leave("it was interrupted, or ended by its launcher, as after another process of its machine failed")
        raise
    peers.leave()


def meet() -> "Store":
    """The store of the launcher, or of process 0. Raises UserError where it cannot be reached."""
    from torch.distributed import rendezvous

    if "MASTER_ADDR" not in os.environ and "SLURM_JOB_ID" in os.environ:
        from lightning.fabric.plugins.environments import SLURMEnvironment

        os.environ["MASTER_ADDR"] = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
        os.environ.setdefault("MASTER_PORT", str(15_000 + int(os.environ["SLURM_JOB_ID"]) % 10_000))
    place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    try:
        return next(rendezvous("env://", rank(), num_ranks(), timeout=COME))[0]
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the first process cannot be reached at {place} (MASTER_ADDR:MASTER_PORT; {one_line(error, 200)}); start"
            " the same command on every machine, and let the machines reach each other"
        ) from None


@contextmanager
def connecting() -> Iterator[None]:
    """A context in which the processes connect to each other; the program ends where that takes too long."""
    late = threading.Timer(COME.total_seconds(), _end_unconnected)
    late.daemon = True
    late.start()
    yield
    late.cancel()


def _end_unconnected() -> None:
    what = f"the processes have met, but could not connect within {_minutes(COME)}"
    fix = "name the network between the machines: NCCL_SOCKET_IFNAME=eth0, without GPUs GLOO_SOCKET_IFNAME=eth0"
    print(f"{what}; {fix}", file=sys.stderr, flush=True)
    os._exit(2)


def _no_store() -> str:
    return f"process 0 of this run, at {os.environ['MASTER_ADDR']}, {GONE}"


def _minutes(duration: timedelta) -> str:
    return f"{duration.total_seconds() / 60:.0f} minutes"
