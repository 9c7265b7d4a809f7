"""Sweeps (-m): a line for each job, the others after one that failed, and a table of runs and folds at the end."""

import io
import logging
import math
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


JOBS: list[Job] = []  # of this process's sweep, in order


def run_job(named: Sequence[str], work: Callable[[], Any], describe_os_error: Callable[[OSError], str]) -> Any:
    """Call `work` and print one line instead of its output; return its result, None where it failed.

    `named` are overrides that tell the jobs apart. An error is one line, and of a crash the traceback before it;
    the sweep goes on, also after a time that was up. Ctrl-C passes.
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
        traceback.print_exc()
        error = " ".join(f"{type(crash).__name__}: {crash}".split())
    finally:
        log.setLevel(level)
    place, last = FOLD_LINE.search(output.getvalue()), LAST_LINE.findall(output.getvalue())
    if error:
        print(visible(f"{title}: failed: {error}"), file=sys.stderr, flush=True)
    else:
        job = _trained(title, place[1], int(place[2]), result) if place and isinstance(result, float) else Job(title)
        shown = "" if job.score is None or math.isnan(job.score) else f"{job.metric} {job.score:.4f}, "
        print(f"{title}: {shown}{time.monotonic() - start:.0f} s, {last[-1] if last else 'done'}", flush=True)
    JOBS.append(Job(title, error=error) if error else job)
    return result


def _trained(title: str, run: str, fold: int, loss: float) -> Job:
    """The job of a finished fold with its score by the task's metric, first the one on the dev rows, named as such."""
    from nexttoken.runs.fold_metrics import own_metric
    from nexttoken.runs.folder import RunFolder

    folder = RunFolder(Path(run)).fold(fold)
    saved = folder.metrics() if folder.is_finished else {}
    metric = own_metric(saved)
    for key, name in ((f"dev_{metric.name}", f"dev {metric.title}"), (metric.name, metric.title)):
        if saved.get(key) is not None:
            return Job(title, run, fold, saved[key], metric=name)
    return Job(title, run, fold, loss, metric="dev log loss" if "dev_log_loss" in saved else "log loss")


def table(jobs: Sequence[Job]) -> str:
    """The score of every run and fold with each run's mean and spread; "" where none was trained."""
    trained = [job for job in jobs if job.score is not None]
    metrics = dict.fromkeys(job.metric for job in trained)  # one, unless the sweep is over tasks
    return "\n\n".join(_table(metric, [job for job in trained if job.metric == metric]) for metric in metrics)


def _table(metric: str, jobs: Sequence[Job]) -> str:
    from nexttoken.report.markdown import NOTHING, loss_cell, markdown, mean_cell

    scores: dict[str, dict[int, float]] = {}
    for job in jobs:
        scores.setdefault(job.run, {})[job.fold] = job.score  # type: ignore[assignment]
    folds = sorted({fold for run in scores.values() for fold in run})
    rows = [
        [run, *(loss_cell(by_fold.get(fold), NOTHING) for fold in folds), mean_cell(list(by_fold.values()))]
        for run, by_fold in scores.items()
    ]
    return markdown([f"{metric} of", *(f"fold {fold}" for fold in folds), "mean ± spread"], rows)


def failures(jobs: Sequence[Job]) -> str:
    """A line that names the failed jobs; "" where none failed."""
    failed = [job for job in jobs if job.error]
    if not failed:
        return ""
    return f"{len(failed)} of {len(jobs)} jobs failed: {first_five(f'{job.title} ({job.error})' for job in failed)}"
