"""Curation of a set larger than memory: stages of steps, from one temporary file to the next, in several processes."""

import os
import signal
import threading
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
from nexttoken.transforms.curation.spool import Packed, Spool, pack, pack_by
from nexttoken.transforms.curation.step import CHUNK, Judge, Step, Tally, judge_rows
from nexttoken.types import Example

T = TypeVar("T")
R = TypeVar("R")
MAX_QUEUED = 3  # chunks per process; more would only take memory


@dataclass(frozen=True)
class Work:
    """One pass over the rows: the judges in turn, then the survey of the next stage's first step."""

    judges: Mapping[str, Judge]
    following: Step | None

    def __call__(self, chunk: Packed) -> "Done":
        tallies = {name: Tally() for name in self.judges}
        placed = list(enumerate(chunk.unpack(), start=chunk.first))
        for name, judge in self.judges.items():
            placed = judge_rows(judge, placed, tallies[name])
        rows = [row for _, row in placed]
        return Done(pack(rows, 0), tallies, self.following.survey(rows) if self.following else None)


@dataclass(frozen=True)
class Done:
    """The rows of a chunk that stay, the tallies by step, and the next step's survey."""

    rows: Packed
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
    groups = stages(steps)
    surveys: list[Any] = []
    before: Spool | None = None
    for number, group in enumerate(groups):
        judges = {name: make_judge(step, surveys, before) for name, step in group.items()}
        following = next(iter(groups[number + 1].values())) if number + 1 < len(groups) else None
        chunks = pack_by(rows, CHUNK) if before is None else before.chunks(CHUNK)
        after, surveys = Spool(folder / f"rows{number}"), []
        total = num_rows if before is None else len(before)
        with Progress(total, f"curate {number + 1}/{len(groups)}, {', '.join(group) or 'read'}") as progress:
            for done in in_order(Work(judges, following), chunks, processes):
                after.append(done.rows)
                surveys.append(done.survey)
                for name, tally in done.tallies.items():
                    steps[name].tally.add(tally)
                progress.advance(min(CHUNK, total - progress.done))
        if before is not None:
            before.close()
        before = after
    assert before is not None  # there is always a first stage
    return before


def stages(steps: Mapping[str, Step]) -> list[dict[str, Step]]:
    """Groups of steps that share a pass; a step that surveys begins a new one, after all rows passed those before."""
    groups: list[dict[str, Step]] = [{}]
    for name, step in steps.items():
        if step.surveys:
            groups.append({})
        groups[-1][name] = step
    return groups


def make_judge(step: Step, surveys: list[Any], before: Spool | None) -> Judge:
    """The step's judge; only the first step of a later stage surveys, and may fetch other rows."""

    def fetch(position: int) -> Example:
        assert before is not None
        return before.fetch(position)

    return step.judge(surveys if step.surveys else (), fetch)


_work: Callable[[Any], Any]  # of a worker process


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when its parent ends: a killed parent would leave it waiting for ever."""
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
    with ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(work,)) as pool:
        try:
            yield from _windowed(pool, items, MAX_QUEUED * processes)
        except BrokenProcessPool:
            raise UserError("a curation process was killed, often for lack of memory; try processes=1") from None


def _windowed(pool: ProcessPoolExecutor, items: Iterable[Any], window: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(_run, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
