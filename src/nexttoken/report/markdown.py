"""Numbers as table cells and cells as a Markdown table, which is aligned so that a terminal shows it as well."""

import re
from collections.abc import Sequence
from math import isnan

from nexttoken.errors import UNSHOWN
from nexttoken.metrics.intervals import Interval
from nexttoken.metrics.probabilities import mean_and_spread

NOTHING = "–"
MARKUP = re.compile(r"[\\|\[\]`]|<(?=[A-Za-z/!?])")  # of columns, links, pictures, code and tags; "< 0.001" is none
MAX_WIDTH = 99  # characters of a table with its last border, for a terminal of 100
PAGE_WIDTH = 200  # of a table for a page of the documentation


def loss_cell(value: float | None, unknown: str = NOTHING) -> str:
    return unknown if value is None or isnan(value) else f"{value:.4f}"


def difference_cell(value: float) -> str:
    return f"{value:+z.4f}"  # of equal scores +0.0000


def mean_cell(values: Sequence[float], sign: str = "") -> str:
    """Mean ± sample standard deviation, which a single value does not have; `sign` "+" is for differences."""
    mean, spread = mean_and_spread(values)
    return f"{mean:{sign}z.4f} ± {f'{spread:.4f}' if len(values) > 1 else NOTHING}"


def interval_cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.low:{sign}z.4f} to {interval.high:{sign}z.4f}"


def plain(text: str) -> str:
    """Return text of the data, such as a genre or a name, for one line of a page: without markup of its own.

    Characters that would command a terminal become U+FFFD, for pages are printed, too.
    """
    one_line = UNSHOWN.sub("\ufffd", text.replace("\r", " ").replace("\n", " "))
    return MARKUP.sub(lambda mark: "&lt;" if mark.group() == "<" else f"\\{mark.group()}", one_line)


def markdown(header: list[str], rows: list[list[str]], max_width: int = MAX_WIDTH) -> str:
    """A table padded for reading in a terminal too; the first column is text, the others are numbers.

    Columns that do not fit into `max_width` characters follow in further tables, which repeat the first column.
    All cells are made `plain`: bold type is the only markup in them.
    """
    names, *columns = [list(column) for column in zip(header, *rows, strict=True)]
    names = [*map(plain, _shortened(names, max_width // 2))]
    blocks, room = [[names]], max_width - _width(names)
    for column in ([*map(plain, column)] for column in columns):
        if _width(column) > room and len(blocks[-1]) > 1:
            blocks.append([names])
            room = max_width - _width(names)
        blocks[-1].append(column)
        room -= _width(column)
    return "\n\n".join(map(_table, blocks))


def _width(column: Sequence[str]) -> int:
    """Characters that a column takes with its border."""
    return max(3, *map(len, column)) + 3


def _shortened(names: list[str], longest: int) -> list[str]:
    """Names above `longest` without their middle; as they are where two of them would then look the same."""
    half = longest // 2
    short = [name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}" for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _table(columns: Sequence[Sequence[str]]) -> str:
    widths = [_width(column) - 3 for column in columns]
    rule = [":" + "-" * (widths[0] - 1), *["-" * (width - 1) + ":" for width in widths[1:]]]
    head, *rows = zip(*columns, strict=True)
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in [head, rule, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
