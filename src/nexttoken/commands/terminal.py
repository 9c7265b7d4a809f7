"""The terminal of a command: log lines and errors without control characters of the data, and a reader that leaves."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from nexttoken.errors import visible

CLOSED_PIPE = 141  # the status of a program that a closed pipe ends: 128 and the number of SIGPIPE


class VisibleFormatter(logging.Formatter):
    """Formats a log line without what would command the terminal, for ids, genres and names are logged as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def show_log(stream: TextIO) -> None:
    """Show the log on `stream`, this package's from INFO on and that of libraries from WARNING on."""
    logging.basicConfig(stream=stream)
    handler = logging.root.handlers[0]
    handler.setFormatter(VisibleFormatter("%(message)s"))
    handler.setLevel(logging.INFO)  # whatever level a library gives its own logger
    logging.getLogger("nexttoken").setLevel(logging.INFO)


def stop(line: str, status: int) -> None:
    """End the program with `line` on stderr."""
    print(visible(" ".join(line.splitlines())), file=sys.stderr)
    sys.exit(status)


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
