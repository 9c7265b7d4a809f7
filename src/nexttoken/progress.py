"""Progress of long work, a bar on a terminal and plain lines elsewhere, and the time until a deadline."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from nexttoken.errors import UserError

SILENT_SECONDS = 5.0  # before anything is shown
LINE_SECONDS = 10.0  # between two plain lines
DURATION = re.compile(r"(?=.)(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
MINUTE, HOUR = 60.0, 3600.0
UNANSWERED = 3  # the exit status of a command whose time was up before every row was answered
RING_AGAIN_SECONDS = 1.0  # Python drops an exception that arises while an object is being deleted


class Progress:
    """Counts rows, and shows rows/s and the time left. As a context manager it removes the bar after an error."""

    is_shown: ClassVar[bool] = True  # one of several processes shows it

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what = total, what
        self._bar: Any = None
        self.start_at(0)

    def start_at(self, done: int) -> None:
        """Start the clock after `done` rows, which a resumed run does not count in its rate."""
        self.done = self.first = done
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(self, rows: int, note: str = "") -> None:
        """Count `rows` more and update the display if due; `note` is a short text such as `loss 0.98`."""
        self.done += rows
        now = time.monotonic()
        if now - self._start < SILENT_SECONDS or not self.is_shown:
            return
        if sys.stderr.isatty():
            self._show_bar(note)
        elif now - self._shown >= LINE_SECONDS:
            self._shown = now
            print(self.line(now - self._start, note), file=sys.stderr, flush=True)

    def line(self, seconds: float, note: str = "") -> str:
        """Return `train: 640/3200 rows, 212 rows/s, 0:12 left, loss 0.98`."""
        rate = (self.done - self.first) / max(seconds, 1e-9)
        left = int(max(0, self.total - self.done) / rate) if rate else 0
        time_left = f"{left // 60}:{left % 60:02d} left" if rate else "time left unknown"
        text = f"{self.what}: {self.done}/{self.total} rows, {_short(rate)} rows/s, {time_left}"
        return f"{text}, {note}" if note else text

    def _show_bar(self, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress
            from rich.table import Column

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=len(f"{self.total}/{self.total}"))),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, note=note)
        rate = (self.done - self.first) / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, completed=self.done, note=f"{_short(rate)} rows/s {note}")


def _short(rate: float) -> str:
    """Format a rate, also of slow work: `0.3`, `4.1`, `212`."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


class TimeIsUp(BaseException):
    """The time of `time_limit` is over. No error of a library, and so caught by none of them."""


def duration(seconds: float) -> str:
    """Seconds in a readable unit: `42 s`, `12.5 min`, `3.1 hours`."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.1f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:,.1f} hours"


def seconds_of(duration: Any) -> float | None:
    """The seconds of a text such as 8h30m, 45m or 90s; None of None. Raises ValueError for another one."""
    if duration is None:
        return None
    found = DURATION.fullmatch(duration) if isinstance(duration, str) else None
    hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else (0, 0, 0)))
    if not (total := HOUR * hours + MINUTE * minutes + seconds):
        raise ValueError(f"{duration!r} is no time; expected hours, minutes or seconds, such as 8h30m, 45m or 90s")
    return total


class Deadline:
    """The moment at which a command has to have ended, `seconds` after its program was started.

    Called from another program, such as a notebook, the clock starts here.
    """

    program_start: ClassVar[float | None] = None  # as of `time.monotonic`; None: no command of its own

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = (time.monotonic() if self.program_start is None else self.program_start) + seconds

    @classmethod
    def at(cls, end: float) -> "Deadline":
        """The deadline at this time of `time.monotonic`, which all processes of a machine share."""
        deadline = cls(0.0)
        deadline._end = end
        return deadline

    @classmethod
    def note_program_start(cls) -> None:
        """Have the clock of this program's deadline start with the program itself, imports included."""
        cls.program_start = time.monotonic() - _age()

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._end - time.monotonic()

    def refuse_over(self, what: str) -> None:
        """Raise UserError where the time was up before `what`."""
        if self.left <= 0:
            needed = f"that takes {self.seconds - self.left:.0f} s"
            raise UserError(f"within: {self.seconds:g} s were over before {what}, and {needed}; give more time")


def _age() -> float:
    """Seconds since this program was started, imports included; 0 where the system does not say it."""
    try:
        started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeIsUp in this context after that many seconds, also inside a call of a library.

    Not in a thread other than the main one, where Python has no such signal. Contexts may be nested.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeIsUp

    start, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    outer, again = signal.getitimer(signal.ITIMER_REAL)
    try:  # before the timer is set: it may ring at once
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 1e-3), threading.TIMEOUT_MAX), RING_AGAIN_SECONDS)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - start), 1e-3), again)
