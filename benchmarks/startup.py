"""Measure how soon help and error messages appear, compared with the time of importing everything.

python -m benchmarks.startup                     five rounds; each runs every command once, and the import once
python -m benchmarks.startup repeats=9 out=startup.json

Every command is a separate process, timed from its start to its end, and must print the expected message. Memory is
the peak of the whole process. CPU seconds, which are in the file, depend less on the machine's other load.
The environment is not changed: with PYTHONDONTWRITEBYTECODE set, our side compiles its modules each time.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import ROOT, Record, Repeats, Run, compare, run_python, table, write_records
from nexttoken.commands.arguments import Arguments, run
from nexttoken.data.csv_tables import csv_rows, write_csv
from nexttoken.errors import UserError

SAMPLE = ROOT / "input" / "sample-preferences"
TARGET = 0.15  # of the time of importing everything
EVERYTHING = (  # what training, prediction and their reports import between them
    *("torch", "transformers", "peft", "bitsandbytes", "lightning.pytorch", "pandas", "hydra", "pydantic"),
    *("sklearn.linear_model", "sklearn.model_selection", "sklearn.feature_extraction.text", "scipy.optimize"),
    *("bm25s", "matplotlib.pyplot"),
)
PACKAGES = ("pandas", "hydra-core", "pydantic", "scikit-learn", "scipy", "bm25s", "matplotlib")
# The file, the row and the column that are overwritten, and the new text. Row 0 is the header; None: the first id.
FAULTS = {
    "column": ("train.csv", 0, "response_a", "respnse_a"),
    "twice": ("train.csv", -1, "id", None),
    "label": ("train.csv", -1, "winner_tie", "2"),
    "test": ("test.csv", 0, "response_a", "respnse_a"),
}


@dataclass(frozen=True)
class Process(Run):
    """A command's time and memory, and its CPU seconds."""

    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    """A process with its expected exit status and a part of its expected output."""

    work: str
    arguments: tuple[str, ...]
    message: str
    status: int = 2

    def run(self, folder: Path) -> Process:
        """Time the process. Raises UserError if it ends with another status or without the message."""
        status, output, seconds, used = run_python(self.arguments, folder / "output.txt")
        if status != self.status or self.message not in output:
            ended = f"it ended with {status}: {output[-300:]}"
            raise UserError(f"{self.work}: expected {self.message!r} and status {self.status}, but {ended}")
        return Process(seconds, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)  # Linux counts memory in KiB


PEER = Command("importing everything", ("-c", f"import {', '.join(EVERYTHING)}"), message="", status=0)


def commands(folder: Path) -> list[Command]:
    """Every command that has nothing to compute; the files that it needs are written into `folder`."""
    finished = f"run={write_run(folder)}"
    faulty = {name: f"input_dir={write_faulty(folder / name, *fault)}" for name, fault in FAULTS.items()}
    (folder / "empty").mkdir()
    table = [  # script, title after its name, arguments, message
        ("train", " --help", ["--help"], "python train.py fold=0"),
        ("train", ", a mistyped key", ["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'?"),
        ("train", ", a value of the wrong kind", ["fold=first"], "fold='first' is not accepted"),
        ("train", ", no CSV", [f"input_dir={folder / 'empty'}"], "train.csv cannot be read"),
        ("train", ", a missing column", [faulty["column"]], "lacks the columns response_a"),
        ("train", ", an id twice", [faulty["twice"]], "again, first in train.csv:"),
        ("train", ", a label outside the set", [faulty["label"]], "expected 0 or 1 with exactly one 1"),
        ("predict", " --help", ["--help"], "python predict.py"),
        ("predict", ", a mistyped key", ["rum=x"], "did you mean 'run'?"),
        ("predict", ", no such run", [f"run={folder / 'none'}"], "has no finished fold"),
        ("predict", ", a missing column", [finished, faulty["test"]], "lacks the columns response_a"),
    ]
    return [
        Command(f"{script}.py{title}", (f"{script}.py", *arguments), message, 0 if arguments == ["--help"] else 2)
        for script, title, arguments, message in table
    ]


def write_run(folder: Path) -> Path:
    """Make a finished run of a model that was not trained; return its folder."""
    settings = ("name=run", "trainer.max_epochs=0", "limit_rows=8", f"output_dir={folder}", "logger=none")
    Command("train.py", ("train.py", *settings), message="run: ", status=0).run(folder)
    return folder / "lmsys" / "run"


def write_faulty(folder: Path, file_name: str, row: int, column: str, text: str | None) -> Path:
    """Copy the sample into `folder`, overwrite one cell of one of its files, and return `folder`."""
    shutil.copytree(SAMPLE, folder)
    rows = [cells for _, cells in csv_rows(folder / file_name)]
    place = rows[0].index(column)
    rows[row][place] = rows[1][place] if text is None else text
    write_csv(rows, folder / file_name)
    return folder


def measure(commands: Sequence[Command], repeats: int, folder: Path) -> list[Record]:
    """Run each command and the import in alternation, `repeats` times after one round that is not counted."""
    rounds = [{command: command.run(folder) for command in (PEER, *commands)} for _ in range(1 + repeats)][1:]
    return [record(command, [(processes[command], processes[PEER]) for processes in rounds]) for command in commands]


def record(command: Command, runs: Sequence[tuple[Process, Process]]) -> Record:
    """The record of one command's runs, each beside the import's; the target is of the wall-clock seconds."""
    cpu, peer_cpu = (median(process.cpu_seconds for process in processes) for processes in zip(*runs, strict=True))
    facts = {"cpu_ratio": cpu / peer_cpu, "cpu_seconds": cpu, "peer_cpu_seconds": peer_cpu}
    return compare(command.work, PEER.work, None, runs, kind="time", target=TARGET, packages=PACKAGES, facts=facts)


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
