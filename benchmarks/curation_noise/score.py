"""How much of the known noise a curation found: `python -m benchmarks.curation_noise.score truth=... curated=...`.

python -m benchmarks.curation_noise.score truth=output/noisy/truth.jsonl curated=output/curated/train.jsonl
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from benchmarks.curation_noise.noise import COPIES
from nexttoken.commands.arguments import Arguments, run

JsonLinesPath = Annotated[Path, Field(examples=["<file of JSON lines>"])]
SHOWN = 5  # ids of rows that were missed, or wrongly dropped


@dataclass(frozen=True)
class Found:
    """Rows of one kind: how many there are and are gone, and the ids that are not as they should be."""

    num_rows: int
    num_gone: int
    wrong: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.num_gone / self.num_rows if self.num_rows else 0.0


def score(truth: Iterable[Mapping[str, str]], kept: Collection[str]) -> dict[str, Found]:
    """By kind: which rows are gone; "clean" first.

    Of a row and its copy only one is to stay, whichever comes first: a clean row is lost where its copies are gone too.
    """
    truth = list(truth)
    copies: dict[str, list[str]] = defaultdict(list)
    for row in truth:
        if row["kind"] in COPIES:
            copies[row["of"]].append(row["id"])
    ids, gone = defaultdict(list), defaultdict(set)
    for row in truth:
        kind, own = row["kind"], row["id"]
        ids[kind].append(own)
        same = copies.get(own, []) if kind == "clean" else []
        if kind in COPIES:
            is_gone = own not in kept or row["of"] not in kept
        else:
            is_gone = own not in kept and not any(copy in kept for copy in same)
        if is_gone:
            gone[kind].add(own)
    kinds = sorted(ids, key=lambda kind: (kind != "clean", kind))
    return {kind: found(ids[kind], gone[kind], kind == "clean") for kind in kinds}


def found(ids: Sequence[str], gone: Collection[str], are_clean: bool) -> Found:
    return Found(len(ids), len(gone), tuple(own for own in ids if (own in gone) == are_clean)[:SHOWN])


def table(results: Mapping[str, Found]) -> str:
    lines = ["| kind | rows | gone | share | not as it should be |", "|---|---:|---:|---:|---|"]
    for kind, one in results.items():
        lines.append(f"| {kind} | {one.num_rows:,} | {one.num_gone:,} | {one.share:.2%} | {' '.join(one.wrong)} |")
    return "\n".join(lines)


def read_lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class ScoreArguments(Arguments):
    truth: JsonLinesPath
    curated: JsonLinesPath


def main(arguments: Sequence[str]) -> None:
    given = ScoreArguments.parse(arguments)
    kept = {row["id"] for row in read_lines(given.curated)}
    print(table(score(read_lines(given.truth), kept)))


if __name__ == "__main__":
    run(main, __doc__)
