"""Sweeps (-m): a line for each job, and the others after one that failed."""

import io
import logging
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nexttoken.commands.own_process import Call, Ended
from nexttoken.commands.terminal import fault_of_machine, show_crash
from nexttoken.commands.typed import given_name, key_of
from nexttoken.data.secrets import without_secrets
from nexttoken.errors import UserError, first_five, visible
from nexttoken.models.processes import NeedsOwnProcess
from nexttoken.progress import UNANSWERED

FOLD_LINE = re.compile(r"^run: (.*)/fold(\d+)$", re.M)  # printed by train.py for a finished fold
LAST_LINE = re.compile(r"^(?:run|submission): .*$", re.M)


@dataclass(frozen=True)
class Job:
    """A finished job of a sweep, or one that failed with `error`."""

    title: str  # the overrides that differ between the jobs
    run: str = ""  # the run folder, of train.py
    fold: int = 0
    score: float | None = None
    error: str = ""
    metric: str = "log loss"
    higher_is_better: bool = False
    data: str = ""  # the task's folder and the data set: scores of one of them compare
    settings: tuple[str, ...] = ()  # of the title, without the seed and the fold
    seed: str = ""
    overrides: tuple[str, ...] = ()  # all of them
    began: float = 0.0  # in seconds, as of time.time()
    was_finished: bool = False  # before the job: nothing was trained


@dataclass(frozen=True)
class Waiting:
    """A job that a launcher runs later, elsewhere."""

    job: Job
    call: Call
    total: int | None


JOBS: list[Job] = []  # of this process's sweep, in the order in which they ended
TOTAL: int | None = None  # the number of its jobs; None where the sweeper decides it on the way


def run_job(
    named: Sequence[str],
    work: Callable[[], Any],
    overrides: Sequence[str] = (),
    total: int | None = None,
    is_launched: bool = False,
) -> Any:
    """Call `work` and print one line instead of its output; return its result, None where it failed.

    `named` are those of its `overrides` that tell the jobs apart, and `total` is the number of jobs. An error is one
    line, and of a crash the traceback before it; the sweep goes on, also after a time that was up. Ctrl-C passes.
    Work that needs a process of its own gets one, now, or later where `is_launched`: then Waiting is returned.
    """
    settings = tuple(one for one in named if key_of(one) not in ("seed", "fold", "name"))
    seed = next((one.partition("=")[2] for one in named if key_of(one) == "seed"), "")
    job = Job(shlex.join(named), settings=settings, seed=seed, overrides=tuple(overrides), began=time.time())
    try:
        result, ended = _attempt(work)
    except NeedsOwnProcess as need:
        call = Call.of_job(job.title, overrides, need.name, need.devices)
        if is_launched:
            return Waiting(job, call, total)
        result, ended = None, call()
    return finish(job, ended, total, result)


def finish(job: Job, ended: Ended, total: int | None = None, result: Any = None) -> Any:
    """Note a job that has ended, and print its line; return its result.

    The result of a job that ran in a process of its own is read from the fold that it finished.
    """
    place, last = FOLD_LINE.search(ended.output), LAST_LINE.findall(ended.output)
    if ended.error:
        job = replace(job, error=ended.error)
    elif place:
        job, result = _with_score(job, place[1], int(place[2]), result)
    JOBS.append(job)
    number = f"job {len(JOBS)}" if total is None else f"job {len(JOBS)} of {total}"
    if job.error:
        print(visible(without_secrets(f"{number}: {job.title}: failed: {job.error}")), file=sys.stderr, flush=True)
        return None
    parts = [] if job.score is None else [f"{job.metric} {job.score:.4f}"]
    parts += ["finished before" if job.was_finished else f"{ended.seconds:.0f} s"]
    parts += [f"{last[-1] if last else 'done'}{_other_name(job)}", *_time_left(total)]
    print(f"{number}: {job.title}: {', '.join(parts)}", flush=True)
    return result


def _attempt(work: Callable[[], Any]) -> tuple[Any, Ended]:
    """The result of `work`, None where it failed, and how it ended."""
    start, output, log = time.monotonic(), io.StringIO(), logging.getLogger("nexttoken")
    result, error, level = None, "", log.level
    log.setLevel(logging.WARNING)
    try:
        with redirect_stdout(output):
            result = work()
    except NeedsOwnProcess:
        raise
    except UserError as refusal:
        error = str(refusal)
    except SystemExit as end:
        if end.code != UNANSWERED:
            raise
        error = "the time was up before a model had answered every row"
    except Exception as crash:
        if not (error := fault_of_machine(crash) or ""):
            show_crash(type(crash), crash, crash.__traceback__)
            error = " ".join(f"{type(crash).__name__}: {crash}".split())
    finally:
        log.setLevel(level)
    return result, Ended(output.getvalue(), error, time.monotonic() - start)


def _with_score(job: Job, run: str, fold: int, loss: float | None) -> tuple[Job, float | None]:
    """The job of a finished fold with its score by the task's metric, first the one on the dev rows, and its loss."""
    from nexttoken.runs.fold_metrics import own_metric, sweep_loss
    from nexttoken.runs.folder import RunFolder

    folder = RunFolder(Path(run)).fold(fold)
    saved = folder.metrics() if folder.is_finished else {}
    metric, task = own_metric(saved), Path(run).parent.name
    data = f"{saved['dataset']} ({task})" if "dataset" in saved else task
    loss = sweep_loss(saved) if loss is None else loss
    was_finished = folder.is_finished and folder.finished_at < job.began
    job = replace(job, run=run, fold=fold, data=data, was_finished=was_finished)
    for key, name in ((f"dev_{metric.name}", f"dev {metric.title}"), (metric.name, metric.title)):
        if saved.get(key) is not None:
            return replace(job, score=saved[key], metric=name, higher_is_better=metric.higher_is_better), loss
    score = None if math.isnan(loss) else loss
    return replace(job, score=score, metric="dev log loss" if "dev_log_loss" in saved else "log loss"), loss


def _other_name(job: Job) -> str:
    """Words on the given name, where a run under another one has the job's settings already; else ""."""
    if not job.run or (given := given_name(job.overrides)) in (None, Path(job.run).name):
        return ""
    return f" (it has the same settings, so name={given} is not used)"


def _time_left(total: int | None) -> list[str]:
    """`about 12 min left`, by the jobs so far that were not finished before; [] where it is not known."""
    trained = sum(not job.was_finished and not job.error for job in JOBS)
    if total is None or not trained or not (left := total - len(JOBS)):
        return []
    seconds = (time.time() - min(job.began for job in JOBS)) / trained * left
    if seconds < 90:
        return [f"about {seconds:.0f} s left"]
    minutes = seconds / 60
    return [f"about {minutes:.0f} min left" if minutes < 120 else f"about {minutes / 60:.1f} h left"]


def failures(jobs: Sequence[Job]) -> str:
    """A line that names the failed jobs; "" where none failed."""
    failed = [job for job in jobs if job.error]
    if not failed:
        return ""
    return f"{len(failed)} of {len(jobs)} jobs failed: {first_five(f'{job.title} ({job.error})' for job in failed)}"
