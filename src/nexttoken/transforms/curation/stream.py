"""Curation of sets larger than memory: stages of steps, from one temporary file to the next, in several processes."""

import os
import pickle
import signal
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, TypeVar

from nexttoken.errors import UserError
from nexttoken.progress import Progress
from nexttoken.transforms.curation.step import CHUNK, Judge, Step, Tally, judge_rows
from nexttoken.types import Example

MAX_BYTES = 8 << 20  # of rows that are judged at once; a single row may be longer
T = TypeVar("T")
R = TypeVar("R")
MAX_QUEUED = 3  # chunks per process; more would only take memory


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows, each pickled by `dump`, and the position of the first."""

    first: int
    packed: list[bytes]

    def rows(self) -> list[Example]:
        return list(map(load, self.packed))


def chunks(packed: Iterable[bytes], size: int) -> Iterator[Chunk]:
    """Group `size` pickled rows at a time, fewer if they fill MAX_BYTES: long rows take no more memory."""
    first, waiting, num_bytes = 0, list[bytes](), 0
    for row in packed:
        waiting.append(row)
        num_bytes += len(row)
        if len(waiting) == size or num_bytes >= MAX_BYTES:
            yield Chunk(first, waiting)
            first, waiting, num_bytes = first + len(waiting), [], 0
    if waiting:
        yield Chunk(first, waiting)


def dump(row: Example) -> bytes:
    """Pickle a row as a tuple, several times faster than the dataclass."""
    values = (row.id, dict(row.fields), row.label, row.num_options, dict(row.tags), row.demonstrations, row.round)
    return pickle.dumps((*values, row.answer), protocol=5)


def load(packed: bytes) -> Example:
    return Example(*pickle.loads(packed))  # noqa: S301 - packed by this process or one that it started


class Spool:
    """A file of pickled rows: append all, then read; `close` deletes it."""

    def __init__(self, path: Path) -> None:
        self.path, self._ends, self._file = path, array("q", [0]), path.open("w+b")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[bytes]:
        return map(self._read, range(len(self)))

    def append(self, packed: Iterable[bytes]) -> None:
        for row in packed:
            self._file.write(row)
            self._ends.append(self._ends[-1] + len(row))

    def fetch(self, position: int) -> Example:
        return load(self._read(position))

    def rows(self) -> Iterator[Example]:
        return map(load, self)

    def close(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _read(self, position: int) -> bytes:
        start, end = self._ends[position : position + 2]
        self._file.seek(start)
        return self._file.read(end - start)


@dataclass(frozen=True)
class Pass:
    """One pass over the rows: the judges in turn, then the survey of the next stage's first step."""

    judges: Mapping[str, Judge]
    following: Step | None

    def __call__(self, chunk: Chunk) -> "Judged":
        tallies = {name: Tally() for name in self.judges}
        placed = list(enumerate(chunk.rows(), start=chunk.first))
        for name, judge in self.judges.items():
            placed = judge_rows(judge, placed, tallies[name])
        rows = [row for _, row in placed]
        return Judged(list(map(dump, rows)), tallies, self.following.survey(rows) if self.following else None)


@dataclass(frozen=True)
class Judged:
    """The pickled rows of a chunk that stay, the tallies by step, and the next step's survey."""

    rows: list[bytes]
    tallies: Mapping[str, Tally]
    survey: Any


def curate(
    rows: Iterable[Example], steps: Mapping[str, Step], folder: Path, num_rows: int, processes: int = 2
) -> Spool:
    """Return the rows that the steps keep, in order, in a file of `folder`; the steps' reports are of this run.

    The rows are those of `apply_transforms(list(rows), steps)`. `num_rows` is an estimate for the time left.
    """
    for step in steps.values():
        step.tally.clear()
    groups, before, surveys = stages(steps), Spool(folder / "rows"), list[Any]()
    for number, group in enumerate(groups):
        judges = {name: step.judge(surveys, before.fetch) for name, step in group.items()}
        following = next(iter(groups[number + 1].values())) if number + 1 < len(groups) else None
        packed, total = (before, len(before)) if number else (map(dump, rows), num_rows)
        after, surveys = Spool(folder / f"rows{number}"), []
        with Progress(total, f"curate {number + 1}/{len(groups)}, {', '.join(group) or 'read'}") as progress:
            for judged in in_order(Pass(judges, following), chunks(packed, CHUNK), processes):
                after.append(judged.rows)
                surveys.append(judged.survey)
                for name, tally in judged.tallies.items():
                    steps[name].tally.add(tally)
                progress.advance(min(CHUNK, total - progress.done))
        before.close()
        before = after
    return before


def stages(steps: Mapping[str, Step]) -> list[dict[str, Step]]:
    """Group the steps that share a pass; a step that surveys begins a new one, as it needs all rows first."""
    groups: list[dict[str, Step]] = [{}]
    for name, step in steps.items():
        if step.surveys:
            groups.append({})
        groups[-1][name] = step
    return groups


_work: Callable[[Any], Any]  # of a worker process


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when its parent ends: after a killed parent it would wait for ever."""
    parent = parent_process()
    assert parent is not None  # this runs in workers only
    parent.join()
    os._exit(1)


def _run(item: Any) -> Any:
    return _work(item)


def in_order(work: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Yield `work(item)` in the items' order; at most MAX_QUEUED items per process are in memory."""
    if processes == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    with ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(work,)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(_run, item))
                if len(waiting) >= MAX_QUEUED * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a curation process was killed, often for lack of memory; try processes=1") from None
