"""The two sides of a comparison: each runs in a worker process, and they take turns."""

import ctypes
import gc
import io
import logging
import multiprocessing
import pkgutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.measure import Run, status_kb
from nexttoken.data.packages import INSTALL
from nexttoken.errors import UserError

CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # the peak of resident memory is what is resident now (man 5 proc)


@dataclass(frozen=True)
class Answers:
    """Values to compare between the sides, and seconds if the work measures them itself."""

    values: np.ndarray
    seconds: float | None = None


class Work(Protocol):
    """The work of one side; its model is built by the constructor."""

    def run(self) -> Answers:
        """Do all of the work once; this is timed."""

    def check(self) -> np.ndarray:
        """Do it once untimed, as a warm-up. The values are compared with the other side's."""
        return self.run().values


@dataclass(frozen=True)
class Side:
    """The name of a class or function that makes the work ("benchmarks.predictors:Harness"), and its keywords.

    A name instead of an object keeps the imports of both sides out of this process. `first` names a function to call
    before anything else is imported, as train.py and predict.py do.
    """

    make: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    first: str = ""


OUR_FIRST = "nexttoken.models.allocator:keep_freed_memory"


class Worker:
    """A side in another process, which is spawned and inherits only the environment."""

    def __init__(self, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, side), daemon=True)
        self._process.start()
        other.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the work's `method` and return its result; "measured" returns a Run. Raises UserError if it fails."""
        try:
            self._pipe.send((method, arguments))
            succeeded, value = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("a side of the comparison died (out of memory?); try fewer rows") from None
        if not succeeded:
            raise UserError(f"a side of the comparison failed: {value}")
        return value

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


@contextmanager
def working(*sides: Side) -> Iterator[list[Worker]]:
    """Workers for `sides`, built at the same time; they end with the context."""
    workers = [Worker(side) for side in sides]
    try:
        for worker in workers:
            worker.call("ready")
        yield workers
    finally:
        for worker in workers:
            worker.close()


def alternate(ours: Worker, peer: Worker, repeats: int, between: Callable[[], None] | None = None) -> list:
    """`repeats` pairs (our Run, the peer's Run), each side first in every other one; `between` is called after each."""
    pairs = []
    for number in range(repeats):
        order = [ours, peer] if number % 2 == 0 else [peer, ours]
        runs = {id(worker): worker.call("measured") for worker in order}
        pairs.append((runs[id(ours)], runs[id(peer)]))
        if between is not None:
            between()
    return pairs


def largest_difference(ours: Sequence, peer: Sequence, tolerance: float, work: str) -> float:
    """The largest difference between the sides' values. Raises UserError where it is above `tolerance`."""
    if np.shape(ours) != np.shape(peer):
        shapes = f"{np.shape(ours)} and {np.shape(peer)}"
        raise UserError(f"{work}: the sides give {shapes} values; choose rows=16, 24 or 48")
    difference = float(np.abs(np.asarray(ours) - np.asarray(peer)).max())
    if not difference <= tolerance:  # NaN is refused as well
        expected = f"expected at most {tolerance:g}; the sides do not do the same work"
        raise UserError(f"{work}: the sides differ by {difference:.2g}, {expected}")
    return difference


def _serve(pipe: Connection, side: Side) -> None:
    """Build the work at once, so that both sides build at the same time; then answer until the pipe is closed."""
    sys.stdout = io.StringIO()  # hides the output of libraries
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    work, failure = None, ""
    try:
        if side.first:
            pkgutil.resolve_name(side.first)()
        work = pkgutil.resolve_name(side.make)(**side.arguments)
    except Exception as error:
        failure = _describe(error)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if work is None:
                pipe.send((False, failure))
            elif method == "ready":
                pipe.send((True, None))
            else:
                pipe.send((True, measured(work) if method == "measured" else getattr(work, method)(*arguments)))
        except Exception as error:
            pipe.send((False, _describe(error)))


def _describe(error: Exception) -> str:
    """One line with the error and its place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(str(error).split())[:500]
    if isinstance(error, ModuleNotFoundError):
        what += f"; {INSTALL.get(str(error.name), 'install it')}"
    return f"{type(error).__name__}: {what} ({Path(place.filename).name}:{place.lineno})"


def measured(work: Work) -> Run:
    """Run the work once; return its seconds and its peak of resident memory in MB beyond the memory before."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR_REFS.write_text(RESET_PEAK)
    before, start = status_kb("VmRSS"), time.perf_counter()
    answers = work.run()
    seconds = time.perf_counter() - start if answers.seconds is None else answers.seconds
    return Run(seconds, (status_kb("VmHWM") - before) / 1000)
