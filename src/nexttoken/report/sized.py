"""The table of works that were sized on paper: time, GPU hours, cost, memory, exchange and limit of each."""

from collections.abc import Sequence

from nexttoken.progress import HOUR, duration
from nexttoken.report.markdown import NOTHING, PAGE_WIDTH, markdown
from nexttoken.runs.forecasts.on_paper import Sized

GIB = 2**30


def sized_table(found: Sequence[Sized], price: float | None = None) -> str:
    """A row for each work and number of GPUs; with the price of a GPU for an hour, the cost in the same currency."""
    header = ["work", "time", "GPU hours", "GiB each", "link, GB/s", "limit"]
    rows = [
        [
            _named(one),
            _span(one),
            _span(one, one.gpus / HOUR, ",.1f"),
            f"{one.memory / GIB:.1f}",
            f"{one.link:,.0f}" if one.link else NOTHING,
            one.limit,
        ]
        for one in found
    ]
    if price is not None:
        header.insert(3, "cost")
        for row, one in zip(rows, found, strict=True):
            row.insert(3, _span(one, price * one.gpus / HOUR, ",.2f"))
    return markdown(header, rows, max_width=PAGE_WIDTH)


def _named(one: Sized) -> str:
    name = f"{one.work}, {one.gpus} GPU{'s' * (one.gpus > 1)}"
    return f"{name}, {one.strategy}" if one.strategy else name


def _span(one: Sized, factor: float | None = None, form: str = "") -> str:
    """The shortest and the longest time, or both times a factor in a form; a dash where the memory does not suffice."""
    if one.seconds is None:
        return NOTHING
    low, high = (duration(seconds) if factor is None else f"{seconds * factor:{form}}" for seconds in one.seconds)
    return f"{low} to {high}"
