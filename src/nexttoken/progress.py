"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

SILENT_SECONDS = 5.0  # before anything is shown
LINE_SECONDS = 10.0  # between two plain lines


class Progress:
    """Counts rows, and shows rows/s and the time left. As a context manager it removes the bar after an error."""

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
        if now - self._start < SILENT_SECONDS:
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

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
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
