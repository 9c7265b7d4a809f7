"""Numbers as table cells and cells as a Markdown table, which is aligned so that a terminal shows it as well."""

from collections.abc import Sequence
from math import isnan

from nexttoken.metrics.intervals import Interval
from nexttoken.metrics.probabilities import mean_and_spread

NOTHING = "–"


def loss_cell(value: float | None, unknown: str = NOTHING) -> str:
    return unknown if value is None or isnan(value) else f"{value:.4f}"


def difference_cell(value: float) -> str:
    return f"{value:+.4f}"


def mean_cell(values: Sequence[float], sign: str = "") -> str:
    """Mean ± sample standard deviation, which a single value does not have; `sign` "+" is for differences."""
    mean, spread = mean_and_spread(values)
    return f"{mean:{sign}.4f} ± {f'{spread:.4f}' if len(values) > 1 else NOTHING}"


def interval_cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table padded for reading in a terminal too; the first column is text, the others are numbers."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [header, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *["-" * (width - 1) + ":" for width in widths[1:]]]
    lines = [cells[0], rule, *cells[1:]]
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
