"""Pages and long lines on a terminal, at most 100 columns wide; a pipe and a file get them as they are."""

import os
import sys
import textwrap
from shutil import get_terminal_size

from nexttoken.errors import visible

MAX_COLUMNS = 100  # however wide the terminal is
NAME_WIDTH = 10  # of the names of values, with the space behind them


def show(page: str) -> None:
    """Print a page of Markdown: drawn where stdout is a terminal, at most 100 columns wide, else as it is.

    A block of several lines that is no table and no list stays as it is: its lines may be commands to be copied.
    """
    if not is_drawn():
        print(page)
        return
    from rich.console import Console  # also follows NO_COLOR
    from rich.markdown import Markdown
    from rich.text import Text

    console = Console(width=num_columns(), file=sys.stdout)
    for place, block in enumerate(page.split("\n\n")):
        text = visible(block)
        if "\n" not in block or block.startswith(("|", "- ")):
            with console.capture() as drawn:
                console.print(Markdown(block))
            text = "\n".join(line.rstrip() for line in drawn.get().splitlines() if Text.from_ansi(line).plain.strip())
        print(f"\n{text}" if place else text)


def show_value(name: str, value: str) -> None:
    """Print a value behind its name; on a terminal a long one goes on below itself."""
    show_line(f"{name:<{NAME_WIDTH - 1}} {value}", " " * NAME_WIDTH)


def show_line(line: str, indent: str = "") -> None:
    """Print plain text; on a terminal a long line is broken between words, and goes on behind `indent`."""
    if is_drawn():
        line = textwrap.fill(
            visible(line), num_columns(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    print(line)


def is_drawn() -> bool:
    """True where stdout is a terminal that can draw."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def num_columns() -> int:
    return min(MAX_COLUMNS, get_terminal_size().columns)
