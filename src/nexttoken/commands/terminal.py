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
from nexttoken.errors import UserError, visible
from nexttoken.models.places import has_launcher, is_first, read_launcher, speaks
from nexttoken.progress import Progress

CLOSED_PIPE = 141  # the status of a program that a closed pipe ends: 128 and the number of SIGPIPE
SPEECH_SECONDS = 10.0  # for the process that speaks: torchrun ends it as soon as another one of its machine has ended


class VisibleFormatter(logging.Formatter):
    """Formats a log line without secrets and without what would command the terminal: names are logged as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(without_secrets(super().format(record)))


def show_log(stream: TextIO) -> None:
    """Show the log on `stream`, this package's from INFO on and that of libraries from WARNING on.

    From now on a traceback shows no secret of the environment.
    """
    sys.excepthook = show_crash
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


def describe_os_error(error: OSError) -> str:
    """A line for a path that could not be read or written."""
    path = str(error.filename2 or error.filename or "output")[:500]
    fix = "make room there or " * (error.errno == errno.ENOSPC) + "give another path"
    return f"{path}: {error.strerror or error}; {fix}; nothing half-written was left behind"


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
