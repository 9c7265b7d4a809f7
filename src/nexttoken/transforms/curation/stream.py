"""Curation of a set larger than memory: stages of steps from one temporary file to the next, by several processes."""

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
from nexttoken.transforms.curation.counted import Tally
from nexttoken.transforms.curation.spool import Packed, Spool, pack, pack_by
from nexttoken.transforms.curation.step import CHUNK, Judge, Step, judge_rows
from nexttoken.types import Example

T = TypeVar("T")
R = TypeVar("R")
QUEUED = 3  # chunks a process that are on their way; more would only take memory


@dataclass(frozen=True)
class Work:
    """One pass over the rows: these judges in turn, then what the next stage's first step wants to know."""

    judges: Mapping[str, Judge]
    following: Step | None

    def __call__(self, chunk: Packed) -> "Done":
        tallies = {name: Tally() for name in self.judges}
        numbered = list(enumerate(chunk.unpack(), start=chunk.first))
        for name, judge in self.judges.items():
            numbered = judge_rows(judge, numbered, tallies[name])
        rows = [row for _, row in numbered]
        return Done(pack(rows, 0), tallies, self.following.survey(rows) if self.following else None)


@dataclass(frozen=True)
class Done:
    """What is left of a chunk, what each step did to it, and what the next step learns from it."""

    rows: Packed
    tallies: Mapping[str, Tally]
    survey: Any


def curate(
    rows: Iterable[Example], steps: Mapping[str, Step], folder: Path, num_rows: int, processes: int = 2
) -> Spool:
    """Return the rows that the steps keep, in order, in a file of `folder`; every step's report is of this run.

    The rows are those of `apply_transforms(list(rows), steps)`. `num_rows`, about so many, is only for the time left.
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
                count(done, steps)
                progress.advance(min(CHUNK, total - progress.done))
        if before is not None:
            before.close()
        before = after
    assert before is not None  # there is always a first stage
    return before


def count(done: Done, steps: Mapping[str, Step]) -> None:
    for name, tally in done.tallies.items():
        steps[name].tally.add(tally)


def stages(steps: Mapping[str, Step]) -> list[dict[str, Step]]:
    """Steps that share a pass: one that surveys begins a new pass, for it has to have seen all that comes before."""
    groups: list[dict[str, Step]] = [{}]
    for name, step in steps.items():
        if step.surveys:
            groups.append({})
        groups[-1][name] = step
    return groups


def make_judge(step: Step, surveys: list[Any], before: Spool | None) -> Judge:
    """The step's judge; only the first of a stage, which has rows before it, asks for surveys or for other rows."""

    def fetch(position: int) -> Example:
        assert before is not None
        return before.fetch(position)

    return step.judge(surveys if step.surveys else (), fetch)


_work: Callable[[Any], Any]  # in each worker: what it does


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """A first process that is killed ends nobody, and its workers would wait for work for ever."""
    first = parent_process()
    assert first is not None  # this runs in workers only
    first.join()
    os._exit(1)


def _run(item: Any) -> Any:
    return _work(item)


def in_order(work: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Yield `work(item)` in the items' order; never more than a few items a process are held."""
    if processes == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(work,)) as pool:
        try:
            yield from _windowed(pool, items, QUEUED * processes)
        except BrokenProcessPool:
            raise UserError(
                "a process of the curation was ended from outside, often for want of memory; try processes=1"
            ) from None


def _windowed(pool: ProcessPoolExecutor, items: Iterable[Any], window: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(_run, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
