"""The rows of a timed prediction divided among processes, one per GPU, which exchange answers through files.

The processes do not wait for each other, so that one that fails or is slow costs its own rows alone.
"""

import atexit
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nexttoken.data.whole_files import whole_file
from nexttoken.models.machine_shares import divide_machine
from nexttoken.models.places import LAUNCHER
from nexttoken.models.processes import end_with
from nexttoken.progress import UNANSWERED
from nexttoken.runs.timed.row_answers import RowAnswers

SHARE = "NEXTTOKEN_SHARE"  # this process's number, from 1, and the end of its time, where another one has started it
POLL_SECONDS = 0.1
EARLIER_SECONDS = 1.0  # than the first process the others end, so that it has their last answers


@dataclass
class Shares:
    """This process's number among `number`, and the folder of the others' answers; 0 has started them."""

    number: int = 1
    place: int = 0
    folder: Path = Path()
    until: float | None = None  # as of `time.monotonic`
    others: list[subprocess.Popen] = field(default_factory=list)

    @classmethod
    def of(cls, number: int, folder: Path) -> "Shares":
        """Those of this command; it is one of them where it was started as such, and ends with the first."""
        if SHARE not in os.environ:
            return cls(number, 0, folder)
        end_with(int(os.environ[LAUNCHER]))
        place, until = os.environ[SHARE].split()
        return cls(number, int(place), folder, float(until))

    def own(self, lengths: np.ndarray) -> np.ndarray:
        """This process's row numbers: all shares have the same profile of lengths (N,)."""
        order = np.argsort(lengths, kind="stable")
        turns = np.arange(len(order)) % (2 * self.number)
        return np.sort(order[np.minimum(turns, 2 * self.number - 1 - turns) == self.place])  # 0 1 1 0 0 1 1 0

    def journals(self, folder: Path | None) -> Path | None:
        """A folder of this share's own."""
        return folder if folder is None or self.number == 1 else folder / f"share{self.place}-of-{self.number}"

    def start(self, seconds: float) -> None:
        """Start the same command once more for each other share, on a GPU of its own where there are any.

        They answer for so many seconds.

        Raises UserError for fewer GPUs than shares.
        """
        if self.number == 1 or self.place:
            return
        until = time.monotonic() + seconds - EARLIER_SECONDS
        for place, variables in enumerate(divide_machine(self.number)[1:], start=1):
            self.file(place).unlink(missing_ok=True)
            own = {**variables, SHARE: f"{place} {until}", LAUNCHER: str(os.getpid())}
            command = [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
            self.others.append(subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.DEVNULL))
        atexit.register(self.stop)

    def file(self, place: int) -> Path:
        return self.folder / f"share{place}-of-{self.number}.npz"

    def save(self, answers: RowAnswers) -> None:
        """Write this share's answers for the first process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {f"{run}\n{number}": table for (run, number), table in answers.tables.items()}
        with whole_file(self.file(self.place)) as part, part.open("wb") as file:
            np.savez(file, **tables)  # type: ignore[arg-type]

    def collect(self, answers: RowAnswers) -> None:
        """Add the answers that the others have written so far."""
        for place in range(1, len(self.others) + 1):
            if self.file(place).exists():
                with np.load(self.file(place)) as saved:
                    for name, table in saved.items():
                        run, _, number = name.partition("\n")
                        rows = np.flatnonzero(~np.isnan(table).any(axis=1))
                        answers.put((run, int(number) if number.isdigit() else number), rows, table[rows])

    def wait(self, answers: RowAnswers) -> None:
        """Wait for the others to end, and say which of them failed; `answers` then has theirs."""
        for place, process in enumerate(self.others, start=1):
            while process.poll() is None:  # not wait(): a time limit interrupts this
                time.sleep(POLL_SECONDS)
            if process.returncode not in (0, UNANSWERED):
                print(f"process {place} ended with status {process.returncode}: its rows are answered here")
        self.collect(answers)

    def stop(self) -> None:
        """End the others."""
        for process in self.others:
            process.terminate()
