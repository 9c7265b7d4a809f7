"""Comparisons of two sides: their cases, records and plot, and the command line that their benchmarks share."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from benchmarks.measure import ALL, Kind, Names, Record, Repeats, choose, compare, share_of_rate, table, update_records
from benchmarks.shapes import Shape
from benchmarks.sides import OUR_FIRST, Side, alternate, largest_difference, working
from benchmarks.workload import GEMMA, TINY, TINY_GEMMA, Workload
from nexttoken.commands.arguments import Arguments
from nexttoken.errors import UserError
from nexttoken.report.figures import new_figure, save_figure

HEIGHT = 0.42  # inches of a record in the plot


@dataclass(frozen=True)
class Case:
    """One line of the table: the work, its two sides, and the targets of the ratios.

    The first `compared` values of both sides (None: all) must be equal to `tolerance` (0: the sides do other work, so
    nothing is compared). `operations` are the floating-point operations that the work needs; with them, our share of
    the machine's rate is reported as well. With `settles` the peer first tries its options and keeps its fastest.
    """

    work: str
    peer: str
    precision: str
    workload: Workload
    ours: Side
    theirs: Side
    target: float | None = None
    memory_target: float | None = None
    kind: Kind = "speed"
    tolerance: float = 1e-4
    compared: int | None = None
    operations: int = 0
    share_target: float | None = None
    settles: bool = False
    note: str = ""
    packages: Sequence[str] = field(default=())


def records(case: Case, repeats: int) -> list[Record]:
    """Check that both sides give the same values, then measure them in turns."""
    rates: list[float] = []
    with working(case.ours, case.theirs) as (ours, peer):
        facts: dict[str, Any] = {"rows": case.workload.rows, "tokens": case.workload.tokens}
        values, peer_values = (side.call("check")[: case.compared] for side in (ours, peer))
        if case.tolerance:
            facts["largest_difference"] = largest_difference(values, peer_values, case.tolerance, case.work)
        notes = [case.note, peer.call("settle") if case.settles else ""]
        between = (lambda: rates.append(ours.call("rate"))) if case.operations else None
        runs = alternate(ours, peer, repeats, between)
    fields: dict[str, Any] = {name: getattr(case, name) for name in ("target", "memory_target", "kind", "packages")}
    note = "; ".join(filter(None, notes))
    made = [compare(case.work, case.peer, case.precision, runs, note=note, facts=facts, **fields)]
    if rates:
        floors = [case.operations / rate for rate in rates]
        facts = facts | {"operations": case.operations, "rates": rates}
        alone = [run for run, _ in runs]
        made.append(share_of_rate(case.work, case.precision, floors, alone, target=case.share_target, facts=facts))
    return made


class Options(Arguments):
    """The command line of a comparison. Without `rows`, each case sets its number."""

    cases: Names = ALL
    size: Literal["full", "tiny"] = "full"
    rows: Annotated[int, Field(ge=1, le=100_000)] | None = None
    repeats: Repeats = 5
    batch_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    out: Path | None = None

    @property
    def tiny(self) -> bool:
        return self.size == "tiny"

    def workload(self, shape: Shape, rows: int, rehearsed: int, **fields: Any) -> Workload:
        """A case's workload of `rows`, or the rehearsal's of `rehearsed` rows."""
        if self.tiny:
            small = TINY_GEMMA if shape is GEMMA else TINY
            return Workload(small, self.rows or rehearsed, fields.get("precision", "float32"), 4, 9, 60)
        return Workload(shape, self.rows or rows, **fields)

    def side(self, kind: str, work: Workload, **arguments: Any) -> Side:
        """Our side, made by the class that `kind` names ("predictors:Predict")."""
        arguments = {"workload": work, "batch_tokens": self.batch_tokens, **arguments}
        return Side(f"benchmarks.{kind}", arguments, OUR_FIRST)


def command(name: str, make_cases: Callable[[Options], dict[str, Case]], arguments: Sequence[str]) -> None:
    """Measure the chosen cases; after each, update the JSON file and the plot."""
    options, start = Options.parse(arguments), time.monotonic()
    known = make_cases(options)
    chosen = choose("cases", options.cases, known)
    out = options.out or (None if options.tiny else Path(f"benchmarks/results/{name}.json"))
    made: list[Record] = []
    for title in chosen:
        case = known[title]
        made += _attempt(replace(case, work=f"rehearsal: {case.work}") if options.tiny else case, options.repeats)
        if out is not None and made:  # a killed command has saved its finished cases
            plot(update_records(out, made), out.with_suffix(".png"), f"python -m benchmarks.{name}")
    print(table(made))
    print(f"{time.monotonic() - start:.0f} s")


def _attempt(case: Case, repeats: int) -> list[Record]:
    """A case's records; none if it fails, with a printed line, so that the next case runs."""
    start = time.monotonic()
    print(f"{case.work}, {case.precision}, against {case.peer}", flush=True)
    try:
        made = records(case, repeats)
    except UserError as error:
        print(f"  not measured: {error}", flush=True)
        return []
    for record in made:
        print(f"  {record.summary}; {record.note}".rstrip("; "), flush=True)
    print(f"  {json.dumps(dict(made[0].facts))}; {time.monotonic() - start:.0f} s", flush=True)
    return made


def plot(records: Sequence[Record], path: Path, title: str) -> None:
    """Write a PNG with a line per record: ratio (dot), its spread (bar), its target (upright stroke).

    Shares of the machine's rate are on the same axis: 1x is the whole rate.
    """
    figure = new_figure(9, 1.4 + HEIGHT * len(records))
    axes = figure.subplots()
    for place, record in enumerate(reversed(records)):
        colour = {None: "tab:gray", True: "tab:blue", False: "tab:orange"}[record.reached]
        axes.plot([record.ratio_min, record.ratio_max], [place, place], color=colour, linewidth=5, alpha=0.35)
        axes.plot(record.ratio, place, "o", color=colour)
        if record.target is not None:
            axes.plot(record.target, place, "|", color="black", markersize=16)
        axes.annotate(record.ratio_text(record.ratio), (record.ratio, place), (0, 7), textcoords="offset points")
    axes.set_yticks(range(len(records)), [f"{r.work}, {r.precision}\n{r.peer}" for r in reversed(records)], fontsize=7)
    axes.set_xscale("log")
    axes.margins(0.1, 0.15)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xlabel("ours over the peer's\n(blue: target reached, orange: not reached; stroke: target)", fontsize=8)
    axes.set_title(title)
    save_figure(figure, path)
