"""Write train.jsonl and truth.jsonl: Japanese instructions, some of them faulty in known ways.

python -m benchmarks.curation_noise out=output/noisy [rows=20000] [noise=26] [seed=0]

`noise` is the share of faulty rows, in per cent.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from benchmarks.curation_noise.noise import draw_rows
from nexttoken.commands.arguments import Arguments, run
from samples import write_lines


class NoiseArguments(Arguments):
    out: Annotated[Path, Field(examples=["output/noisy"])]
    rows: Annotated[int, Field(ge=100, le=10_000_000)] = 20_000
    noise: Annotated[int, Field(ge=1, le=50)] = 26
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def main(arguments: Sequence[str]) -> None:
    given = NoiseArguments.parse(arguments)
    print(write_sample_noise(given.out, given.rows, given.noise / 100, given.seed))


def write_sample_noise(folder: Path, num_rows: int, share: float, seed: int) -> str:
    """Write train.jsonl and truth.jsonl (`id`, `kind`, `of`) into `folder`; return a line that says what they hold."""
    rows = draw_rows(num_rows, share, seed)
    lines = ({"id": i, "instruction": r.instruction, "input": r.input, "output": r.output} for i, r in rows.items())
    write_lines(folder / "train.jsonl", lines)
    truth = ({"id": i, "kind": r.kind} | ({"of": r.of} if r.of else {}) for i, r in rows.items())
    write_lines(folder / "truth.jsonl", truth)
    counts = Counter(row.kind for row in rows.values())
    clean = counts.pop("clean")
    return f"{folder}: {clean:,} clean rows, and {counts.total():,} of {len(counts)} kinds of noise"


if __name__ == "__main__":
    run(main, __doc__)
