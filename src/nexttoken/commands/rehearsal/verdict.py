"""The verdict on a rehearsed notebook: pass, or the error that Kaggle would show, with its cause and the fix."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.commands.rehearsal.isolation import Limits, Outcome
from nexttoken.data.row_files import RowFile
from nexttoken.errors import NO_MEMORY, UserError, first_five, one_line
from nexttoken.tasks.submission import require_order

TIMEOUT, THREW, EXCEEDED = "Notebook Timeout", "Notebook Threw Exception", "Notebook Exceeded Allowed Compute"
NOT_FOUND, SCORING = "Submission CSV Not Found", "Submission Scoring Error"
MEMORY = re.compile(rf"MemoryError|OutOfMemory|{NO_MEMORY.pattern}|SIGKILL|exit status (-9|137)\b")
DISK = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC")
GB, NUM_LAST_CHARACTERS = 1e9, 4_000
# In other batches half precision gives other last digits, and a near tie another label.
MAX_DIFFERENCE, MAX_OTHER_TEXTS = 0.02, 0.02


@dataclass(frozen=True)
class Verdict:
    """An error of Kaggle's by its name, its cause and its fix."""

    error: str
    cause: str
    fix: str

    def __str__(self) -> str:
        return f"{self.error}: {self.cause}; {self.fix}"


def judge(outcome: Outcome, limits: Limits, task: Any, submission: Path) -> Verdict | None:
    """The error of a rehearsal; None where it passed: `submission` answers every row of the task's test."""
    if outcome.status is None:
        last = last_line(outcome.log)
        return Verdict(
            TIMEOUT,
            f"it was not done after {limits.seconds:,.0f} s, and said last: {last or 'nothing'}",
            "shorten within=, or take a smaller run, fewer folds, or cascade=",
        )
    if outcome.status != 0:
        return _failure(outcome, outcome.status, limits)
    if not submission.is_file():
        cause = f"no {submission.name} lies in the working folder at the end"
        return Verdict(
            NOT_FOUND, cause, f"call predict.py with name={submission.stem} submissions_dir=<the working folder>"
        )
    try:
        check_answers(task, submission)
    except UserError as error:
        fix = "read the test file when the notebook runs, and write one answer to each of its rows"
        return Verdict(SCORING, str(error).replace(f"{submission.parent}/", ""), fix)
    return None


def _failure(outcome: Outcome, status: int, limits: Limits) -> Verdict:
    tail, last = outcome.log[-NUM_LAST_CHARACTERS:], last_line(outcome.log)
    if DISK.search(tail):
        cause = f"out of disk: {outcome.written / GB:.1f} GB were written, of {limits.disk / GB:.1f} GB ({last})"
        return Verdict(EXCEEDED, cause, "write less into the working folder, and read weights from the input")
    if status in (-9, 137) or MEMORY.search(tail):
        cause = f"out of memory: {outcome.peak_memory / GB:.1f} GB were used, of {limits.memory / GB:.1f} GB ({last})"
        return Verdict(EXCEEDED, cause, "set batch_tokens= to less, quantise the base, or take a smaller one")
    if status < 0:
        return Verdict(THREW, f"it was ended by signal {-status} ({last})", "run its cells one at a time")
    return Verdict(THREW, last, "mend that cell, or what it calls; the log has all that it said")


def check_answers(task: Any, path: Path) -> None:
    """Raise UserError where a submission does not answer the test rows of the task, each once and in order."""
    if hasattr(task, "check"):
        task.check(path)
        return
    rows = RowFile.read(path).rows
    key = next(iter(rows[0]))
    require_order(path, [str(row.get(key)) for row in rows], "the test", [example.id for example in task.read("test")])
    if empty := [str(row[key]) for row in rows if None in row.values()]:
        raise UserError(f"{path} has no answer for ids {first_five(empty)}; expected one each")


def last_line(log: str) -> str:
    """The last line of a log that says something, such as an error and its text."""
    lines = [line for line in re.split(r"[\r\n]+", log) if line.strip()]
    return one_line(lines[-1], 300) if lines else ""


@dataclass(frozen=True)
class Comparison:
    """The visible rows of two submissions: how many are equal byte for byte, and what the others differ by.

    `difference` is the largest between two numbers, `other_texts` counts the rows with another text.
    """

    num_rows: int
    equal: int
    difference: float
    other_texts: int

    def __str__(self) -> str:
        if self.equal == self.num_rows:
            return f"all {self.num_rows:,} visible rows equal those of predict.py, byte for byte"
        numbers = f"the numbers of the others differ by at most {self.difference:.1e}"
        texts = f", {self.other_texts:,} have another text" if self.other_texts else ""
        equal = f"{self.equal:,} of {self.num_rows:,} visible rows equal those of predict.py, byte for byte"
        return f"{equal}; {numbers}{texts}, since other rows stand in their batches"

    @property
    def is_same(self) -> bool:
        """True where nothing but rounding differs."""
        return self.difference <= MAX_DIFFERENCE and self.other_texts <= MAX_OTHER_TEXTS * self.num_rows


def compare(submission: Path, reference: Path) -> Comparison:
    """Compare the first rows of a submission with all of `reference`. Raises UserError for other columns or ids."""
    given = RowFile.read(reference).rows
    own = RowFile.read(submission, len(given)).rows
    equal, others, difference = 0, 0, 0.0
    for row, other in zip(own, given, strict=True):
        key = next(iter(other))
        if [*row] != [*other] or row[key] != other[key]:
            raise UserError(f"{submission} has {first_cells(row)} where predict.py writes {first_cells(other)}")
        equal += row == other
        pairs = [(row[name], other[name]) for name in other if row[name] != other[name]]
        distances = [_distance(str(one), str(two)) for one, two in pairs]
        difference = max([difference, *(one for one in distances if one is not None)])
        others += None in distances
    return Comparison(len(given), equal, difference, others)


def first_cells(row: dict) -> str:
    return ", ".join(f"{name}={str(value)[:30]}" for name, value in [*row.items()][:2])


def _distance(one: str, two: str) -> float | None:
    """The distance of two numbers; None of two texts."""
    try:
        return abs(float(one) - float(two))
    except ValueError:
        return None
