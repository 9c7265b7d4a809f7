"""Predict many generated rows within a time: does it end in time, use the time, and keep a valid file meanwhile?

python -m benchmarks.deadline run=output/lmsys/<name>             20 predictions of 25,000 rows within a minute
python -m benchmarks.deadline run=output/lmsys/<name> busy=true   another process begins to compute in the middle
python -m benchmarks.deadline run=output/lmsys/<name> kills=20    killed at random moments, half of them by SIGTERM

Arguments:
  run=...          a finished run of the embedded sample
  rows=25000       generated test rows, with known true probabilities
  within=60s       the time of each prediction
  times=20         predictions
  busy=false       true: from the middle of each prediction on, another process computes without pause
  kills=0          instead: kills of one prediction, which goes on each time with the same command
  devices=1        processes that divide the rows
  seed=0           of the rows and of the moments of the kills

Every second the file is read and checked: its header, the ids in order, and probabilities that sum to 1.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import ROOT
from nexttoken.commands.arguments import Arguments, RunPath, run
from nexttoken.errors import UserError
from nexttoken.progress import seconds_of
from nexttoken.report.markdown import markdown
from nexttoken.tasks.preference import CLASSES
from samples import preferences, write_csv

FIRST_ID = 10_000_000  # above those of the training rows
BUSY = "while True: pass"


class DeadlineArguments(Arguments):
    run: RunPath
    rows: int = 25_000
    within: str = "60s"
    times: int = 20
    busy: bool = False
    kills: int = 0
    devices: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Timed:
    """One prediction: its seconds and exit status, when the first file was there, and how often it was read."""

    seconds: float
    status: int
    first_file: float
    num_valid: int
    log_loss: float
    words: str


def write_rows(folder: Path, number: int, seed: int) -> Path:
    """The embedded sample's training file with `number` new test rows and their true probabilities."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "input" / "sample-preferences" / "train.csv", folder)
    pairs = preferences.draw_pairs(number, np.random.default_rng(seed))
    ids = [FIRST_ID + pair.id for pair in pairs]
    texts = [(row, *preferences.text_cells(pair)) for row, pair in zip(ids, pairs, strict=True)]
    write_csv(folder / "test.csv", ("id", *preferences.TEXTS), texts)
    write_csv(folder / "sample_submission.csv", ("id", *CLASSES), [(row, *[1 / 3] * 3) for row in ids])
    truth = [(row, *pair.probs) for row, pair in zip(ids, pairs, strict=True)]
    write_csv(folder / "truth.csv", ("id", *CLASSES), truth)
    return folder


def read_valid(path: Path, truth: pd.DataFrame) -> float:
    """The expected log loss of a submission. Raises UserError for a file that is not valid."""
    table = pd.read_csv(path)
    probs = table[list(CLASSES)].to_numpy(dtype=float)
    is_sound = np.isfinite(probs).all() and (probs >= 0).all() and (np.abs(probs.sum(axis=1) - 1) < 1e-6).all()
    if list(table) != ["id", *CLASSES] or not np.array_equal(table["id"], truth["id"]) or not is_sound:
        raise UserError(f"{path} is no valid submission")
    return float(-(truth[list(CLASSES)].to_numpy() * np.log(np.maximum(probs, 1e-15))).sum(axis=1).mean())


def command(given: DeadlineArguments, rows: Path, folder: Path) -> list[str]:
    places = [f"run={given.run}", f"input_dir={rows}", f"submissions_dir={folder}", "name=timed"]
    return [sys.executable, "predict.py", *places, f"within={given.within}", f"devices={given.devices}"]


def predict(given: DeadlineArguments, rows: Path, folder: Path, until: float | None = None, number: int = 0) -> Timed:
    """Predict, reading the file every second; `until` these seconds, when the signal `number` is sent."""
    truth, path, limit = pd.read_csv(rows / "truth.csv"), folder / "timed.csv", seconds_of(given.within) or 0.0
    first_file, num_valid, others = float("nan"), 0, list[subprocess.Popen]()
    start = time.monotonic()
    with subprocess.Popen(command(given, rows, folder), stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        while process.poll() is None:
            passed = time.monotonic() - start
            if path.exists():
                first_file = min(first_file, passed) if first_file == first_file else passed
                read_valid(path, truth)
                num_valid += 1
            if given.busy and passed > limit / 2 and not others:
                others = [subprocess.Popen([sys.executable, "-c", BUSY])]
            if until is not None and passed > until:
                process.send_signal(number)
                until = None
            time.sleep(min(1.0, max(0.05, (until or passed + 1) - passed)))
        seconds, said = time.monotonic() - start, process.stdout.read() if process.stdout else ""
    for other in others:
        other.kill()
        other.wait()
    words = next((line for line in reversed(said.splitlines()) if line.endswith("are left")), "")
    loss = read_valid(path, truth) if path.exists() else float("nan")
    return Timed(seconds, process.returncode, first_file, num_valid, loss, words.partition(";")[0])


def table(results: Sequence[Timed], limit: float) -> str:
    """A row for each prediction."""
    header = ["prediction", "seconds", "of the time", "status", "first file", "valid reads", "log loss", "answered by"]
    rows = []
    for number, one in enumerate(results, start=1):
        times = [f"{one.seconds:.1f}", f"{one.seconds / limit:.0%}", str(one.status), f"{one.first_file:.1f} s"]
        rows.append([str(number), *times, str(one.num_valid), f"{one.log_loss:.4f}", one.words])
    in_time = sum(one.seconds <= limit for one in results)
    return f"{markdown(header, rows)}\n\n{in_time} of {len(results)} within {limit:.0f} s"


def kill(given: DeadlineArguments, rows: Path, folder: Path) -> Iterator[Timed]:
    """Kill one prediction again and again, and let it end the last time."""
    rng, limit = np.random.default_rng(given.seed), seconds_of(given.within) or 0.0
    for turn in range(given.kills):
        yield predict(given, rows, folder, rng.uniform(0, limit), signal.SIGTERM if turn % 2 else signal.SIGKILL)
    yield predict(given, rows, folder)


@contextmanager
def made_rows(given: DeadlineArguments) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        yield write_rows(Path(scratch) / "sample-preferences", given.rows, given.seed)


def main(arguments: Sequence[str]) -> None:
    given = DeadlineArguments.parse(arguments)
    with made_rows(given) as rows:
        folders = [rows.parent / f"submissions{turn}" for turn in range(given.times)]
        if given.kills:
            results = list(kill(given, rows, folders[0]))
        else:
            results = [predict(given, rows, folder) for folder in folders]
    print(table(results, seconds_of(given.within) or 0.0))


if __name__ == "__main__":
    run(main, __doc__)
