"""The picture of a benchmark: each record's ratio with its spread, and what is wanted of it."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Record, ratio_text
from nexttoken.report.figure import new_figure, save_figure

HEIGHT = 0.42  # inches of a record


def plot(records: Sequence[Record], path: Path, title: str) -> None:
    """Write a PNG with a line per record: ratio (dot), its spread (bar), the wanted one (upright stroke).

    Shares of the machine's rate stand on the same axis: 1x is all of it.
    """
    figure = new_figure(9, 1.4 + HEIGHT * len(records))
    axes = figure.subplots()
    for place, record in enumerate(reversed(records)):
        colour = {None: "tab:gray", True: "tab:blue", False: "tab:orange"}[record.reached]
        axes.plot([record.ratio_min, record.ratio_max], [place, place], color=colour, linewidth=5, alpha=0.35)
        axes.plot(record.ratio, place, "o", color=colour)
        if record.target is not None:
            axes.plot(record.target, place, "|", color="black", markersize=16)
        axes.annotate(ratio_text(record, record.ratio), (record.ratio, place), (0, 7), textcoords="offset points")
    axes.set_yticks(range(len(records)), [f"{r.work}, {r.precision}\n{r.peer}" for r in reversed(records)], fontsize=7)
    axes.set_xscale("log")
    axes.margins(0.1, 0.15)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xlabel("ours over the peer's (blue: as wanted, orange: not; stroke: what is wanted)")
    axes.set_title(title)
    save_figure(figure, path)
