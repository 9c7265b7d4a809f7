"""The terminal of a command: lines without secrets and control characters of the data, and a reader that leaves."""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from nexttoken.data.secrets import without_secrets
from nexttoken.errors import FAILED_FILE, FULL_DISK, NO_MEMORY, UserError, one_line, visible
from nexttoken.models.places import has_launcher, is_first, read_launcher, speaks
from nexttoken.progress import Progress

CLOSED_PIPE = 141  # the status of a program that a closed pipe ends: 128 and the number of SIGPIPE
OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
HAVE_NO_MEMORY = (OSError, RuntimeError, ImportError)  # the errors by which libraries report it
SPEECH_SECONDS = 10.0  # for the process that speaks: torchrun ends it as soon as another one of its machine has ended


class VisibleFormatter(logging.Formatter):
    """Formats a log line without secrets and without what would command the terminal: names are logged as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(without_secrets(super().format(record)))


def show_log(stream: TextIO) -> None:
    """Show the log on `stream`, this package's from INFO on and that of libraries from WARNING on.

    From now on a traceback shows no secret of the environment, and a fault of the machine is one line.
    """
    sys.excepthook = crash
    logging.basicConfig(stream=stream)
    handler = logging.root.handlers[0]
    handler.setFormatter(VisibleFormatter("%(message)s"))
    handler.setLevel(logging.INFO)  # whatever level a library gives its own logger
    logging.getLogger("nexttoken").setLevel(logging.INFO)


def stop(line: str, status: int) -> None:
    """End the program with `line` on stderr; of the processes that a launcher started, one on each machine speaks."""
    if speaks():
        print(visible(without_secrets(" ".join(line.splitlines()))), file=sys.stderr, flush=True)
    else:
        time.sleep(SPEECH_SECONDS)
    sys.exit(status)


def take_place() -> None:
    """Take this process's place among those of a launcher: only the first prints results. One line for a wrong place.

    Called before anything is printed.
    """
    try:
        read_launcher()
    except UserError as error:
        stop(str(error), 2)
    if has_launcher():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns of a broken connection with its own stack
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (as long as the process lives)
        Progress.is_shown = False


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback on stderr without secrets."""
    print(without_secrets("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End the program after an error that nothing caught: with a line where the machine caused it."""
    if line := fault_of_machine(error):
        stop(line, 2)
    show_crash(kind, error, trace)


def fault_of_machine(error: BaseException) -> str | None:
    """A line for a path that cannot be read or written, and for too little memory; None for any other error.

    Libraries report both in their own ways: with the error of Python as a cause, or with its text alone.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OSError) and error.__cause__.errno in OF_DISKS else error
    text = one_line(cause)
    if isinstance(cause, MemoryError) or (isinstance(cause, HAVE_NO_MEMORY) and NO_MEMORY.search(text)):
        what = f"out of memory ({text or 'Python could not have more'})"
        if "thread" in text:
            return f"{what}; allow the process more memory (ulimit -v) or more threads (ulimit -u)"
        return f"{what}; try a lower batch_tokens, fewer rows (limit_rows) or a smaller model, or a machine with more"
    if isinstance(cause, ConnectionError | TimeoutError):
        return f"the network failed ({text}); try again, or look at the address and the network"
    if isinstance(cause, OSError):
        path = str(cause.filename2 or cause.filename or "output")[:500]
        fix = "make room there or " * (cause.errno == errno.ENOSPC) + "give another path"
        return f"{path}: {cause.strerror or cause}; {fix}; nothing half-written was left behind"
    return f"a file could not be read or written ({text}); {FULL_DISK}" if FAILED_FILE.search(text) else None


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End the program without a word where the reader of its output has gone, as `head` does after ten lines."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of the program fails once more
        sys.exit(CLOSED_PIPE)


@contextmanager
def ending_at_once(is_timed: bool) -> Iterator[None]:
    """A context that ends the program with its status where time is short: Python's own end takes a second or more."""
    status: Any = 0
    try:
        yield
    except SystemExit as error:
        if not is_timed or not isinstance(error.code, int):
            raise
        status = error.code
    if is_timed:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            status = CLOSED_PIPE
        os._exit(status)
