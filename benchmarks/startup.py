"""How soon a command answers that has nothing to compute: help, a mistake, a bad CSV; beside importing everything.

python -m benchmarks.startup                     five rounds; in each every command once, and the import once
python -m benchmarks.startup repeats=9 out=startup.json

Every command is a process of its own, timed from its start to its end, and has to say what is expected of it. The
memory is the whole process's at its peak; the seconds of CPU, in the file, depend less on what else the machine does.
The environment is left as it is: with PYTHONDONTWRITEBYTECODE set our side compiles its own modules each time.
"""

import csv
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import ROOT, Record, Repeats, Run, compare, run_python, table, write_records
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError

SAMPLE = ROOT / "input" / "sample-preferences"
LONGEST = 0.15  # of the time of importing everything
EVERYTHING = (  # what training, prediction and their reports import between them
    *("torch", "transformers", "peft", "bitsandbytes", "lightning.pytorch", "pandas", "hydra", "pydantic"),
    *("sklearn.linear_model", "sklearn.model_selection", "sklearn.feature_extraction.text", "scipy.optimize"),
    *("bm25s", "matplotlib.pyplot"),
)
PACKAGES = ("pandas", "hydra-core", "pydantic", "scikit-learn", "scipy", "bm25s", "matplotlib")
Rows = list[list[str]]  # of a CSV, the header first


@dataclass(frozen=True)
class Process(Run):
    """A command's time and memory, and the seconds that it kept a core busy."""

    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    """A process, and what it has to answer: an exit status, and words in what it prints."""

    work: str
    arguments: tuple[str, ...]
    says: str
    status: int = 2

    def run(self, folder: Path) -> Process:
        """Raises UserError where the process ends otherwise: then another thing than the answer would be timed."""
        status, output, seconds, used = run_python(self.arguments, folder / "output.txt")
        if status != self.status or self.says not in output:
            ended = f"it ended with {status}: {output[-300:]}"
            raise UserError(f"{self.work}: expected {self.says!r} and status {self.status}, but {ended}")
        return Process(seconds, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)  # Linux counts memory in KiB


PEER = Command("importing everything", ("-c", f"import {', '.join(EVERYTHING)}"), says="", status=0)


def commands(folder: Path) -> list[Command]:
    """Every command that answers at once, with the files that it needs made in `folder`."""
    finished = f"run={train_nothing(folder)}"
    spoilt = {name: f"input_dir={spoil(folder / name, *how)}" for name, how in FAULTS.items()}
    (folder / "empty").mkdir()
    return [
        Command("train.py --help", ("train.py", "--help"), "python train.py fold=0", 0),
        Command("train.py, a mistyped key", ("train.py", "trainer.max_epoch=3"), "did you mean 'trainer.max_epochs'?"),
        Command("train.py, a value of the wrong kind", ("train.py", "fold=first"), "fold='first' is not accepted"),
        Command("train.py, no CSV", ("train.py", f"input_dir={folder / 'empty'}"), "train.csv cannot be read"),
        Command("train.py, a missing column", ("train.py", spoilt["column"]), "lacks the columns response_a"),
        Command("train.py, an id twice", ("train.py", spoilt["twice"]), "again, first in train.csv:"),
        Command(
            "train.py, a label outside the set", ("train.py", spoilt["label"]), "expected 0 or 1 with exactly one 1"
        ),
        Command("predict.py --help", ("predict.py", "--help"), "python predict.py", 0),
        Command("predict.py, a mistyped key", ("predict.py", "rum=x"), "did you mean 'run'?"),
        Command("predict.py, no such run", ("predict.py", f"run={folder / 'none'}"), "has no finished fold"),
        Command(
            "predict.py, a missing column", ("predict.py", finished, spoilt["test"]), "lacks the columns response_a"
        ),
    ]


def train_nothing(folder: Path) -> Path:
    """Ask a model that was not trained for a few rows, which leaves a finished run."""
    settings = ("name=run", "trainer.max_epochs=0", "limit_rows=8", f"output_dir={folder}", "logger=none")
    Command("train.py", ("train.py", *settings), says="run: ", status=0).run(folder)
    return folder / "lmsys" / "run"


def spoil(folder: Path, file_name: str, change: Callable[[Rows], None]) -> Path:
    """Copy the sample into `folder` and change the rows of one of its files there."""
    shutil.copytree(SAMPLE, folder)
    with (folder / file_name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with (folder / file_name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def rename_column(rows: Rows) -> None:
    rows[0][rows[0].index("response_a")] = "respnse_a"


def repeat_id(rows: Rows) -> None:
    rows[-1][0] = rows[1][0]


def change_label(rows: Rows) -> None:
    rows[-1][rows[0].index("winner_tie")] = "2"


FAULTS = {
    "column": ("train.csv", rename_column),
    "twice": ("train.csv", repeat_id),
    "label": ("train.csv", change_label),
    "test": ("test.csv", rename_column),
}


def measure(asked: Sequence[Command], repeats: int, folder: Path) -> list[Record]:
    """Run each command and the import in alternation, `repeats` times behind one round that is not counted."""
    rounds = [{command: command.run(folder) for command in (PEER, *asked)} for _ in range(1 + repeats)][1:]
    return [record(command, [(one[command], one[PEER]) for one in rounds]) for command in asked]


def record(command: Command, runs: Sequence[tuple[Process, Process]]) -> Record:
    cpu, peer_cpu = (median(process.cpu_seconds for process in side) for side in zip(*runs, strict=True))
    facts = {"cpu_ratio": cpu / peer_cpu, "cpu_seconds": cpu, "peer_cpu_seconds": peer_cpu}
    return compare(command.work, PEER.work, None, runs, kind="time", target=LONGEST, packages=PACKAGES, facts=facts)


class StartupArguments(Arguments):
    repeats: Repeats = 5
    out: Path = Path("benchmarks/results/startup.json")


def main(arguments: Sequence[str]) -> None:
    given = StartupArguments.parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        records = measure(commands(Path(folder)), given.repeats, Path(folder))
    write_records(given.out, records)
    print(table(records))
    slowest = max(records, key=lambda record: record.facts["cpu_ratio"])
    print(f"CPU seconds: at most {slowest.facts['cpu_ratio']:.2f} of the import's, by {slowest.work}")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    run(main, __doc__)
