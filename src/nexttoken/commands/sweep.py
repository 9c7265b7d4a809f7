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

from nexttoken.commands.terminal import show_crash
from nexttoken.data.secrets import without_secrets
from nexttoken.errors import UserError, first_five, visible
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


JOBS: list[Job] = []  # of this process's sweep, in order


def run_job(
    named: Sequence[str],
    work: Callable[[], Any],
    describe_os_error: Callable[[OSError], str],
    overrides: Sequence[str] = (),
) -> Any:
    """Call `work` and print one line instead of its output; return its result, None where it failed.

    `named` are those of its `overrides` that tell the jobs apart. An error is one line, and of a crash the traceback
    before it; the sweep goes on, also after a time that was up. Ctrl-C passes.
    """
    title, output, start, result, error = shlex.join(named), io.StringIO(), time.monotonic(), None, ""
    log = logging.getLogger("nexttoken")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with redirect_stdout(output):
            result = work()
    except UserError as refusal:
        error = str(refusal)
    except OSError as failure:
        error = describe_os_error(failure)
    except SystemExit as end:
        if end.code != UNANSWERED:
            raise
        error = "the time was up before a model had answered every row"
    except Exception as crash:
        show_crash(type(crash), crash, crash.__traceback__)
        error = " ".join(f"{type(crash).__name__}: {crash}".split())
    finally:
        log.setLevel(level)
    place, last = FOLD_LINE.search(output.getvalue()), LAST_LINE.findall(output.getvalue())
    if error:
        print(visible(without_secrets(f"{title}: failed: {error}")), file=sys.stderr, flush=True)
    else:
        job = Job(title, settings=_variant(named), seed=_value("seed", named), overrides=tuple(overrides))
        if place and isinstance(result, float):
            job = _with_score(job, place[1], int(place[2]), result)
        shown = "" if job.score is None or math.isnan(job.score) else f"{job.metric} {job.score:.4f}, "
        print(f"{title}: {shown}{time.monotonic() - start:.0f} s, {last[-1] if last else 'done'}", flush=True)
    JOBS.append(Job(title, error=error) if error else job)
    return result


def _variant(named: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in named if one.lstrip("+").partition("=")[0] not in ("seed", "fold", "name"))


def _value(key: str, overrides: Sequence[str]) -> str:
    return next((one.partition("=")[2] for one in overrides if one.lstrip("+").partition("=")[0] == key), "")


def _with_score(job: Job, run: str, fold: int, loss: float) -> Job:
    """The job of a finished fold with its score by the task's metric, first the one on the dev rows, named as such."""
    from nexttoken.runs.fold_metrics import own_metric
    from nexttoken.runs.folder import RunFolder

    folder = RunFolder(Path(run)).fold(fold)
    saved = folder.metrics() if folder.is_finished else {}
    metric, task = own_metric(saved), Path(run).parent.name
    data = f"{saved['dataset']} ({task})" if "dataset" in saved else task
    job = replace(job, run=run, fold=fold, data=data)
    for key, name in ((f"dev_{metric.name}", f"dev {metric.title}"), (metric.name, metric.title)):
        if saved.get(key) is not None:
            return replace(job, score=saved[key], metric=name, higher_is_better=metric.higher_is_better)
    return replace(job, score=loss, metric="dev log loss" if "dev_log_loss" in saved else "log loss")


def failures(jobs: Sequence[Job]) -> str:
    """A line that names the failed jobs; "" where none failed."""
    failed = [job for job in jobs if job.error]
    if not failed:
        return ""
    return f"{len(failed)} of {len(jobs)} jobs failed: {first_five(f'{job.title} ({job.error})' for job in failed)}"
