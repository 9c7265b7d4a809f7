"""Predict more rows than fit into memory in shards, once undisturbed and once killed: time, memory, equal bytes.

python -m benchmarks.many_rows                       2,000,000 rows in shards of 100,000
python -m benchmarks.many_rows rows=20000 shard_rows=2000

Arguments:
  rows=2000000         generated test rows of six words, in a Parquet file
  shard_rows=100000    rows in memory at a time
  folder=...           keep the files there, instead of in a temporary folder that is removed

A tiny model is trained first. Then predict.py answers all rows; its peak of memory (VmHWM) is read after the second
shard and at the end. The same command is then killed in the middle (SIGKILL), goes on, and its files are compared with
those of the undisturbed one. Prints the table of docs/many-rows.md.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import ROOT
from nexttoken.commands.arguments import Arguments, run
from nexttoken.data.files import hash_file
from nexttoken.errors import UserError
from nexttoken.report.markdown import markdown
from samples import write_csv

WORDS = np.array(["red", "green", "blue", "small", "large", "fast", "slow", "good", "warm", "cold", "old", "open"])
BLOCK = 100_000  # rows that are made at a time
TASK = ["task=table", "task.id=id", "task.fields=[text]", "task.label=label", "task.metric=log_loss"]
FORM = """task.submission={no:'probability("no")',yes:'probability("yes")'}"""
MODEL = ["debug=fast", "logger=none", "model.scratch.hidden_size=32", "model.scratch.num_layers=1"]


class ManyRowsArguments(Arguments):
    rows: int = 2_000_000
    shard_rows: int = 100_000
    folder: Path | None = None


@dataclass
class Predicted:
    """One command: its seconds, those of its processor time, its lines, and peaks of memory in MB by shard."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    peaks: dict[int, float] = field(default_factory=dict)
    last_peak: float = 0.0


def make_rows(number: int, seed: int) -> list[str]:
    """Texts of six words."""
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), (number, 6))
    return [" ".join(words) for words in WORDS[drawn].tolist()]


def write_tables(folder: Path, number: int) -> None:
    """train.csv of 600 rows, labelled by their first word, and test.parquet of so many."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = make_rows(600, 0)
    rows = [(f"t{row}", text, "yes" if text[0] < "h" else "no") for row, text in enumerate(texts)]
    write_csv(folder / "train.csv", ("id", "text", "label"), rows)
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "test.parquet", schema) as writer:
        for start in range(0, number, BLOCK):
            texts = make_rows(min(BLOCK, number - start), 1 + start)
            ids = [f"r{start + row}" for row in range(len(texts))]
            writer.write_table(pa.table([ids, texts], schema=schema))


def predict(folder: Path, given: ManyRowsArguments, submissions: str, kill_after: int = 0) -> Predicted:
    """Predict; with `kill_after` until so many shards are written and half of the next one is answered."""
    places = [f"run={folder}/output/table/tiny", f"submissions_dir={folder / submissions}", "name=whole"]
    command = [sys.executable, "predict.py", *places, f"shard_rows={given.shard_rows}"]
    found, start, before = Predicted(), time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stdout or ():
            found.lines.append(line.strip())
            print(f"  {line.strip()}", flush=True)
            found.last_peak = peak_of(process.pid) or found.last_peak
            if line.startswith("shard "):
                number = int(re.sub(r"\D", "", line.split()[1]))
                found.peaks[number] = found.last_peak
                if number == kill_after:
                    time.sleep(0.5)
                    process.kill()
    if (process.returncode != 0) != bool(kill_after):
        raise UserError(f"predict.py ended with status {process.returncode}: {found.lines[-1:]}")
    found.seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    found.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def peak_of(pid: int) -> float:
    """The peak of a process's memory so far, in MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def hashes(folder: Path) -> dict[str, str]:
    """The hash of the submission and of each part."""
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in sorted(folder.glob("whole*/**/*.*"))} | {
        "whole.csv": hash_file(folder / "whole.csv")
    }


def table(whole: Predicted, killed: Predicted, resumed: Predicted, number: int, is_equal: bool) -> str:
    first, last = whole.peaks.get(2, whole.last_peak), whole.last_peak
    rows = [
        ["the whole command", f"{whole.seconds:,.0f} s, {number / whole.seconds:,.0f} rows/s"],
        ["its processor time", f"{whole.cpu_seconds:,.0f} s, {number / whole.cpu_seconds:,.0f} rows/s"],
        *([stage, f"{seconds} s"] for stage, seconds in stages(whole)),
        ["peak of memory after shard 2", f"{first:,.0f} MB"],
        ["peak of memory at the end", f"{last:,.0f} MB ({last / first - 1:+.1%})"],
        ["shards written before the kill", str(len(killed.peaks))],
        ["shards answered after it", str(len(resumed.peaks))],
        ["files equal to the undisturbed ones", "to the last byte" if is_equal else "NO"],
    ]
    return markdown(["", f"{number:,} rows"], rows)


def stages(whole: Predicted) -> list[list[str]]:
    """The command's stages with their seconds, in order."""
    found = {
        word: next(line for line in whole.lines if word in line) for word in ("ids unique", "seconds:", "read back")
    }
    between = [pair.rsplit(" ", 1) for pair in found["seconds:"].removeprefix("seconds: ").split("; ")]
    seconds = {word: line.partition(" rows in ")[2].split(" s,")[0] for word, line in found.items()}
    first, last = (
        ["check all rows", seconds["ids unique"]],
        ["write the submission, read it back", seconds["read back"]],
    )
    return [first, *between, last]


def main(arguments: Sequence[str]) -> None:
    given = ManyRowsArguments.parse(arguments)
    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_tables(folder / "table", given.rows)
        places = [f"input_dir={folder / 'table'}", f"output_dir={folder / 'output'}", "name=tiny", "fold=0"]
        command = [sys.executable, "train.py", *TASK, FORM, *MODEL, *places]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ})
        whole = predict(folder, given, "undisturbed")
        killed = predict(folder, given, "killed", kill_after=max(1, len(whole.peaks) // 2))
        resumed = predict(folder, given, "killed")
        is_equal = hashes(folder / "undisturbed") == hashes(folder / "killed")
    print(table(whole, killed, resumed, given.rows, is_equal))


if __name__ == "__main__":
    run(main, __doc__)
