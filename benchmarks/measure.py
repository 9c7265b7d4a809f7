"""Records of benchmarks: one for each comparison, as JSON and as a table; and what all benchmarks share."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import struct_rusage
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nexttoken.data.files import write_json
from nexttoken.errors import UserError, nearest
from nexttoken.report.markdown import PAGE_WIDTH, markdown

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "numpy")
HEADER = ["work", "peer", "precision", "ratio", "spread", "target", "memory", "target"]
HEADER += ["s", "peer's s", "MB", "peer's MB"]
ROOT = Path(__file__).resolve().parents[1]
Repeats = Annotated[int, Field(ge=1, le=1000)]
SPLIT = BeforeValidator(lambda text: text.split(",") if isinstance(text, str) else text)  # a,b
Names = Annotated[tuple[str, ...], SPLIT]
ALL = ("all",)
Kind = Literal["speed", "time", "share"]


@dataclass(frozen=True)
class Run:
    """One repetition of one side: seconds, and its peak of memory in MB beyond the memory before."""

    seconds: float
    extra_mb: float | None = None


@dataclass(frozen=True)
class Record:
    """Ours against a peer doing the same work.

    `ratio` is, by `kind`: `speed`, our rows/s over the peer's (higher is better); `time`, our seconds over the peer's
    (lower is better); `share`, the seconds that the arithmetic needs at the machine's measured rate over ours (the
    peer is the machine). It is the ratio of medians; `ratio_min` and `ratio_max` are those of single repetitions, each
    with the peer's next to it. `memory_ratio` is our extra memory over the peer's. Seconds and MB are medians.
    """

    work: str
    peer: str
    precision: str | None  # None: the work has none
    ratio: float
    ratio_min: float
    ratio_max: float
    memory_ratio: float | None
    versions: Mapping[str, str | None]
    kind: Kind = "speed"
    target: float | None = None
    memory_target: float | None = None
    seconds: float | None = None
    peer_seconds: float | None = None
    extra_mb: float | None = None
    peer_extra_mb: float | None = None
    repeats: int = 0
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  # rows, tokens, the largest difference of answers, ...

    @property
    def key(self) -> tuple[str, str, str | None]:
        """The fields that two measurements of the same work have in common."""
        return self.work, self.peer, self.precision

    @property
    def summary(self) -> str:
        """`2.31x (2.20x to 2.40x), memory 0.20`."""
        ratio, low, high = map(self.ratio_text, (self.ratio, self.ratio_min, self.ratio_max))
        memory = "" if self.memory_ratio is None else f", memory {self.memory_ratio:.2f}"
        return f"{ratio} ({low} to {high}){memory}"

    def ratio_text(self, value: float) -> str:
        """`2.31x` for a ratio, `85 %` for a share."""
        return f"{100 * value:.0f} %" if self.kind == "share" else f"{value:.2f}x"

    @property
    def reached(self) -> bool | None:
        """True if ratio and memory reach their targets; None without a target."""
        if self.target is None:
            return None
        fast = self.ratio <= self.target if self.kind == "time" else self.ratio >= self.target
        most = self.memory_target
        return fast and (most is None or (self.memory_ratio is not None and self.memory_ratio <= most))


def compare(work: str, peer: str, precision: str | None, runs: Sequence[tuple[Run, Run]], **fields: Any) -> Record:
    """The record of repetitions (ours, peer's) of the same work; `fields` are further fields, and `packages`.

    Raises UserError for no repetition.
    """
    if not runs:
        raise UserError(f"{work}: nothing was measured, expected one repetition or more; write repeats=5")
    ours, peers = [run for run, _ in runs], [run for _, run in runs]
    seconds, peer_seconds = (median(run.seconds for run in side) for side in (ours, peers))
    extra, peer_extra = _median_mb(ours), _median_mb(peers)
    times = fields.get("kind") == "time"
    ratios = [run.seconds / peer.seconds if times else peer.seconds / run.seconds for run, peer in runs]
    fields["versions"] = versions(fields.pop("packages", ()))
    return Record(
        work,
        peer,
        precision,
        ratio=seconds / peer_seconds if times else peer_seconds / seconds,
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        memory_ratio=extra / peer_extra if extra is not None and peer_extra else None,
        seconds=seconds,
        peer_seconds=peer_seconds,
        extra_mb=extra,
        peer_extra_mb=peer_extra,
        repeats=len(runs),
        **fields,
    )


def share_of_rate(work: str, precision: str, floors: Sequence[float], runs: Sequence[Run], **fields: Any) -> Record:
    """Compare `runs` with `floors`: the seconds of each run's arithmetic at the machine's rate next to it."""
    pairs = list(zip(runs, map(Run, floors), strict=True))
    return compare(work, "the machine's matrix rate", precision, pairs, kind="share", **fields)


def versions(more: Sequence[str] = ()) -> dict[str, str | None]:
    """The versions of Python and of the packages that a figure depends on; None for one that is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in (*PACKAGES, *more)}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _median_mb(runs: Sequence[Run]) -> float | None:
    known = [run.extra_mb for run in runs if run.extra_mb is not None]
    return median(known) if len(known) == len(runs) else None


def choose(key: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names, each once; all known ones for ALL. Raises UserError for an unknown one."""
    names, known = tuple(dict.fromkeys(names)), list(known)
    if names == ALL:
        return known
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{key}={unknown[0]} is not known; {nearest(unknown[0], known)}")
    return list(names)


def run_python(arguments: Sequence[str], log_path: Path) -> tuple[int, str, float, struct_rusage]:
    """Run Python in the checkout; return its exit status, its output, its seconds and its use of resources."""
    with log_path.open("w") as file:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, log_path.read_text(encoding="utf-8", errors="replace").strip(), seconds, used


def status_kb(key: str) -> float:
    """A figure of this process's memory by its name in Linux's /proc/self/status, in KiB; NaN if it is not there."""
    match = re.search(rf"^{key}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1]) if match else float("nan")


def update_records(path: Path, new: Sequence[Record]) -> list[Record]:
    """Add records to a file, in which they replace those of the same work. Return all records."""
    records = merged(read_records(path), new)
    write_records(path, records)
    return records


def merged(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """The old records, replaced by new ones of the same work, then the other new ones."""
    fresh = {record.key: record for record in new}
    kept = [fresh.pop(record.key, record) for record in old]
    return [*kept, *fresh.values()]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Replace the file by these records, whole or not at all."""
    write_json([asdict(record) for record in records], path)


def read_records(path: Path) -> list[Record]:
    """The records in a file, none where there is no file. Raises UserError for a file that holds something else."""
    if not path.exists():
        return []
    try:
        return [Record(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError):
        raise UserError(f"{path} is not a list of a benchmark's records; name another file with out=...") from None


def table(records: Sequence[Record]) -> str:
    """Markdown: ratio with its spread and its target, memory with its target, absolute figures."""
    return markdown(HEADER, [_row(record) for record in records], PAGE_WIDTH)


def _row(record: Record) -> list[str]:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else form.format(value)

    ratio, low, high = map(record.ratio_text, (record.ratio, record.ratio_min, record.ratio_max))
    target = (
        "" if record.target is None else ("≤ " if record.kind == "time" else "≥ ") + record.ratio_text(record.target)
    )
    memory = [cell(record.memory_ratio, "{:.2f}"), cell(record.memory_target, "≤ {:.2f}")]
    seconds = [cell(value, "{:.2f}") for value in (record.seconds, record.peer_seconds)]
    megabytes = [cell(value, "{:.0f}") for value in (record.extra_mb, record.peer_extra_mb)]
    title = [record.work, record.peer, record.precision or ""]
    return [*title, ratio, f"{low} to {high}", target, *memory, *seconds, *megabytes]
