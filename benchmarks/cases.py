"""A comparison from its two sides to its records, and the command line that every benchmark of sides has."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Kind, Record, compare, read_records, share_of_rate, table, write_records
from benchmarks.ratio_plot import plot
from benchmarks.sides import Side, alternate, largest_difference, working
from benchmarks.workload import Workload
from nexttoken.commands.arguments import key_values, whole_number
from nexttoken.errors import UserError, nearest

DEFAULTS = {"cases": "all", "size": "full", "rows": "", "repeats": "5", "batch_tokens": "1024", "out": ""}


@dataclass(frozen=True)
class Case:
    """One line of the table: the work, both sides of it, and what is wanted of the ratio.

    `compared` values of both sides have to be equal to `tolerance` (0: the sides do other work, nothing is compared).
    With `operations`, the floating-point operations that the work needs, our share of the machine's rate is reported
    as well. With `settles` the peer first tries its options and keeps its fastest.
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
    """Check that both sides do the same, then measure them in turns."""
    rates: list[float] = []
    with working(case.ours, case.theirs) as (ours, peer):
        facts: dict[str, Any] = {"rows": case.workload.rows, "tokens": case.workload.tokens}
        mine, theirs = (side.ask("check")[: case.compared] for side in (ours, peer))
        if case.tolerance:
            facts["largest_difference"] = largest_difference(mine, theirs, case.tolerance, case.work)
        notes = [case.note, peer.ask("settle") if case.settles else ""]
        between = (lambda: rates.append(ours.ask("rate"))) if case.operations else None
        runs = alternate(ours, peer, repeats, between)
    own: dict[str, Any] = {"target": case.target, "memory_target": case.memory_target, "kind": case.kind}
    note = "; ".join(filter(None, notes))
    made = [compare(case.work, case.peer, case.precision, runs, note=note, facts=facts, packages=case.packages, **own)]
    if rates:
        floors = [case.operations / rate for rate in rates]
        facts = facts | {"operations": case.operations, "rates": rates}
        alone = [run for run, _ in runs]
        made.append(share_of_rate(case.work, case.precision, floors, alone, target=case.share_target, facts=facts))
    return made


@dataclass(frozen=True)
class Options:
    """The command line, checked. `rows` is None where each case has its own number."""

    cases: list[str] | None
    tiny: bool
    rows: int | None
    repeats: int
    batch_tokens: int
    out: Path | None

    @classmethod
    def parse(cls, name: str, arguments: Sequence[str]) -> "Options":
        given = key_values(arguments, DEFAULTS)
        if given["size"] not in ("full", "tiny"):
            raise UserError(f"size={given['size']} is not known; write size=full, or size=tiny for a rehearsal")
        tiny = given["size"] == "tiny"
        usual = None if tiny else Path(f"benchmarks/results/{name}.json")
        return cls(
            cases=None if given["cases"] == "all" else given["cases"].split(","),
            tiny=tiny,
            rows=whole_number("rows", given["rows"], "24", 1, 100_000) if given["rows"] else None,
            repeats=whole_number("repeats", given["repeats"], "5", 1, 1000),
            batch_tokens=whole_number("batch_tokens", given["batch_tokens"], "1024", 1, 1_000_000),
            out=Path(given["out"]) if given["out"] else usual,
        )


def command(name: str, make_cases: Callable[[Options], dict[str, Case]], arguments: Sequence[str]) -> None:
    """Measure the chosen cases; after each, write JSON and plot, in which records of other cases are kept."""
    options, start = Options.parse(name, arguments), time.monotonic()
    known = make_cases(options)
    chosen = list(known) if options.cases is None else options.cases
    if unknown := [case for case in chosen if case not in known]:
        raise UserError(f"cases={unknown[0]} is not known; {nearest(unknown[0], known)}")
    made: list[Record] = []
    for title in chosen:
        case = known[title]
        made += _attempt(replace(case, work=f"rehearsal: {case.work}") if options.tiny else case, options.repeats)
        if options.out is not None and made:  # a killed command leaves what it has measured
            everything = merged(read_records(options.out), made)
            write_records(options.out, everything)
            plot(everything, options.out.with_suffix(".png"), f"python -m benchmarks.{name}")
    print(table(made))
    print(f"{time.monotonic() - start:.0f} s")


def _attempt(case: Case, repeats: int) -> list[Record]:
    """A case's records, none when it fails: that is said, and the next one goes on."""
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


def merged(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """The old records with the new ones in the places of those that they measure again, and the others behind."""
    fresh = {record.key: record for record in new}
    kept = [fresh.pop(record.key, record) for record in old]
    return [*kept, *fresh.values()]
