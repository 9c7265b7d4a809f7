"""The terminal of a command: log lines and errors without control characters of the data, and a reader that leaves."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Any, TextIO

from nexttoken.errors import visible

MAX_COLUMNS = 100  # of a page on a terminal, however wide that is
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


def show(page: str) -> None:
    """Print a page of Markdown: drawn where stdout is a terminal, at most 100 columns wide, else as it is.

    A block of several lines that is no table and no list stays as it is: its lines may be commands to be copied.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        print(page)
        return
    from rich.console import Console  # also follows NO_COLOR
    from rich.markdown import Markdown
    from rich.text import Text

    console = Console(width=min(MAX_COLUMNS, get_terminal_size().columns), file=sys.stdout)
    for place, block in enumerate(page.split("\n\n")):
        text = visible(block)
        if "\n" not in block or block.startswith(("|", "- ")):
            with console.capture() as drawn:
                console.print(Markdown(block))
            text = "\n".join(line.rstrip() for line in drawn.get().splitlines() if Text.from_ansi(line).plain.strip())
        print(f"\n{text}" if place else text)


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
