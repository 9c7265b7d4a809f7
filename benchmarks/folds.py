"""Compare one command that predicts five folds in both orders with ten separate runs, also within one process.

python -m benchmarks.folds                        24M body, 8k vocabulary, LoRA; about ten minutes on two cores
python -m benchmarks.folds rows=200               loading has a smaller share, so the gain is smaller
python -m benchmarks.folds size=tiny repeats=1    a rehearsal; writes a file only with out=

  cases         process, commands
  rows          of the test set, 100 to 2,000 tokens each
  repeats       pairs that are counted; in every other one the ten runs come first
  out           JSON; benchmarks/results/folds.json

`commands`: ten calls of `predict.py`, as a user without folds and orders would start them, and the average of their
CSVs; start-up time counts. `process`: both sides have imported everything before, so only loading and predicting count.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from benchmarks.fold_runs import FOLDS, ORDERS, Runs, average, make_runs
from benchmarks.measure import ALL, Names, Record, Repeats, Run, choose, compare, run_python, table, update_records
from benchmarks.shapes import shape
from benchmarks.sides import OUR_FIRST, Side, alternate, largest_difference, working
from benchmarks.workload import REALISTIC, Workload
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError

WORK = "5 folds x 2 orders predicted"
SMALL = shape("LlamaConfig", 32, 64, 2, 2, 2, vocab_size=400, max_position_embeddings=4096)
TOLERANCE = 1e-5  # of a class probability; float32 rounds differently in other batches


def predict(run_dir: Path, input_dir: Path, folder: Path, name: str) -> float:
    """Run predict.py; return its peak memory in MB. Raises UserError where it fails."""
    places = (f"run={run_dir}", f"input_dir={input_dir}", f"submissions_dir={folder}", f"name={name}")
    status, output, _, used = run_python(("predict.py", *places), folder / f"{name}.txt")
    if status:
        raise UserError(f"predict.py ended with {status}: {output[-300:]}")
    return used.ru_maxrss * 1024 / 1e6


def probabilities(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2, 3), ndmin=2)


def one_command(runs: Runs, folder: Path) -> tuple[Run, np.ndarray]:
    start = time.perf_counter()
    megabytes = predict(runs.together, runs.input_dir("straight"), folder, "together")
    return Run(time.perf_counter() - start, megabytes), probabilities(folder / "together.csv")


def ten_commands(runs: Runs, folder: Path) -> tuple[Run, np.ndarray]:
    start, megabytes = time.perf_counter(), 0.0
    names = {f"{fold}{order}": (runs.alone(fold), runs.input_dir(order)) for fold in FOLDS for order in ORDERS}
    for name, places in names.items():
        megabytes = max(megabytes, predict(*places, folder, name))
    seconds = time.perf_counter() - start
    return Run(seconds, megabytes), average([probabilities(folder / f"{name}.csv") for name in names])


def commands(runs: Runs, repeats: int, facts: dict) -> Record:
    """One command and ten commands, in turns. Raises UserError if their probabilities differ."""
    pairs, differences = [], []
    for number in range(repeats):
        results = {}
        for side in (one_command, ten_commands)[:: 1 if number % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                results[side] = side(runs, Path(folder))
        pairs.append((results[one_command][0], results[ten_commands][0]))
        differences.append(largest_difference([*results[one_command][1]], [*results[ten_commands][1]], TOLERANCE, WORK))
    facts = {**facts, "largest_difference": max(differences)}
    note = "start-up counts; memory is a whole process's"
    peer = "10 separate runs of predict.py"
    return compare(WORK, peer, "fp32", pairs, kind="time", target=0.85, facts=facts, note=note)


def in_one_process(runs: Runs, repeats: int, facts: dict) -> Record:
    """Loading and predicting alone. Raises UserError unless ours loads the base once and the peer ten times."""
    kinds = ("Together", "Separately")
    sides = [Side(f"benchmarks.fold_runs:{kind}", {"folder": runs.folder}, OUR_FIRST) for kind in kinds]
    work = f"{WORK}, nothing imported"
    with working(*sides) as (ours, peer):
        difference = largest_difference(ours.call("check"), peer.call("check"), TOLERANCE, work)
        pairs = alternate(ours, peer, repeats)
        (loads, seconds), (peer_loads, peer_seconds) = ours.call("loaded"), peer.call("loaded")
    if (loads, peer_loads) != (1, 10):
        raise UserError(f"the base was loaded {loads} times, and {peer_loads} times in ten runs; expected 1 and 10")
    facts = {**facts, "largest_difference": difference, "base_loads": loads, "peer_base_loads": peer_loads}
    last, peer_last = pairs[-1]
    facts |= {"share_of_loading": seconds / last.seconds, "peer_share_of_loading": peer_seconds / peer_last.seconds}
    return compare(work, "10 times load and ask", "fp32", pairs, kind="time", target=0.85, facts=facts)


CASES = {"process": in_one_process, "commands": commands}


class FoldsArguments(Arguments):
    cases: Names = ALL
    rows: Annotated[int, Field(ge=1, le=100_000)] = 12
    repeats: Repeats = 5
    size: Literal["full", "tiny"] = "full"
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = FoldsArguments.parse(arguments)
    tiny = given.size == "tiny"
    out = given.out or (None if tiny else Path("benchmarks/results/folds.json"))
    chosen = choose("cases", given.cases, CASES)
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(SMALL, given.rows, longest=200) if tiny else Workload(REALISTIC, given.rows)
        runs, records = make_runs(Path(folder), workload), []
        facts = {"rows": given.rows, "folds": len(FOLDS), "orders": len(ORDERS)}
        for case in chosen:
            records.append(CASES[case](runs, given.repeats, facts))
            if out is not None:  # a killed command has saved its finished cases
                update_records(out, records)
    print(table(records))


if __name__ == "__main__":
    run(main, __doc__)
