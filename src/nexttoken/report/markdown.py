"""Numbers as table cells and cells as a Markdown table, which is aligned so that a terminal shows it as well."""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import ceil, isnan, log10

from nexttoken.errors import UNSHOWN
from nexttoken.metrics.intervals import Interval
from nexttoken.metrics.probabilities import mean_and_spread

NOTHING = "–"
DIGITS = 4  # decimals of a score without an interval
MARKUP = re.compile(r"[\\|\[\]`]|<(?=[A-Za-z/!?])")  # of columns, links, pictures, code and tags; "< 0.001" is none
BORDER = 3  # characters between two columns
LEAST_CUT = 24  # characters of a cell that is never cut shorter
SHOWN_PREFIX = 8  # characters of what names begin with alike, where the rest is left out
MAX_WIDTH = 99  # characters of a table with its last border, for a terminal of 100
PAGE_WIDTH = 200  # of a table for a page of the documentation


def loss_cell(value: float | None, unknown: str = NOTHING, digits: int = DIGITS) -> str:
    return unknown if value is None or isnan(value) else f"{value:.{digits}f}"


def difference_cell(value: float, digits: int = DIGITS) -> str:
    return f"{value:+z.{digits}f}"  # of equal scores +0.0000


def mean_cell(values: Sequence[float], sign: str = "", digits: int = DIGITS) -> str:
    """Mean ± sample standard deviation, which a single value does not have; `sign` "+" is for differences."""
    mean, spread = mean_and_spread(values)
    return f"{mean:{sign}z.{digits}f} ± {f'{spread:.{digits}f}' if len(values) > 1 else NOTHING}"


def interval_cell(interval: Interval, sign: str = "", digits: int = DIGITS) -> str:
    return f"{interval.low:{sign}z.{digits}f} to {interval.high:{sign}z.{digits}f}"


def digits_for(interval: Interval | None, most: int = DIGITS) -> int:
    """Decimals that an interval supports: two digits of its half width, 2 decimals at least; `most` without one."""
    half = (interval.high - interval.low) / 2 if interval is not None else 0.0
    return most if half <= 0 or isnan(half) else min(most, max(2, ceil(-log10(half)) + 1))


def digits_of_column(intervals: Iterable[Interval | None]) -> int:
    """Decimals for a column of a table: those of its narrowest interval, so that the numbers stand in line."""
    return max((digits_for(interval) for interval in intervals if interval is not None), default=DIGITS)


def plain(text: str) -> str:
    """Return text of the data, such as a genre or a name, for one line of a page: without markup of its own.

    Characters that would command a terminal become U+FFFD, for pages are printed, too.
    """
    one_line = UNSHOWN.sub("\ufffd", text.replace("\r", " ").replace("\n", " "))
    return MARKUP.sub(lambda mark: "&lt;" if mark.group() == "<" else f"\\{mark.group()}", one_line)


def markdown(header: list[str], rows: list[list[str]], max_width: int = MAX_WIDTH) -> str:
    """A table padded for reading in a terminal too; the first column is text, the others are numbers.

    Columns that do not fit into `max_width` characters follow in further tables, which repeat the first column.
    Cells that are too long lose their middle. All are made `plain`: bold type is the only markup in them.
    """
    names, *columns = [list(column) for column in zip(header, *rows, strict=True)]
    names = [*map(plain, _shortened(names, max_width // 2))]
    blocks, room = [[names]], max_width - _width(names)
    longest = max(LEAST_CUT, room - BORDER)
    for column in ([_without_middle(plain(cell), longest) for cell in column] for column in columns):
        if _width(column) > room and len(blocks[-1]) > 1:
            blocks.append([names])
            room = max_width - _width(names)
        blocks[-1].append(column)
        room -= _width(column)
    return "\n\n".join(map(_table, blocks))


def _width(column: Sequence[str]) -> int:
    """Characters that a column takes with its border."""
    return max(3, *map(len, column)) + BORDER


def _shortened(names: list[str], longest: int) -> list[str]:
    """Names above `longest` without their middle, or what they have in common; whole where two would look the same."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names[1:], strict=False))  # the first is the header
    shared = sum(1 for _ in alike)
    ends = [names[0], *(f"…{name[max(0, shared - SHOWN_PREFIX) :]}" for name in names[1:])]
    for shown in (names, ends):
        short = [_without_middle(name, longest) for name in shown]
        if len(set(short)) == len(set(names)):
            return short
    return names


def _without_middle(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[1 - half :]}"


def _table(columns: Sequence[Sequence[str]]) -> str:
    widths = [_width(column) - BORDER for column in columns]
    rule = [":" + "-" * (widths[0] - 1), *["-" * (width - 1) + ":" for width in widths[1:]]]
    head, *rows = zip(*columns, strict=True)
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in [head, rule, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
