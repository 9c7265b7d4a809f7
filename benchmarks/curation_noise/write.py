"""The files of the sample: the rows as an instruction set, and the truth about each beside them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.curation_noise.noise import draw_rows
from nexttoken.data.files import whole_file


def write_sample_noise(folder: Path, num_rows: int, share: float, seed: int) -> str:
    """Write train.jsonl and truth.jsonl (`id`, `kind`, `of`) into `folder`; return a line that says what they hold."""
    rows = draw_rows(num_rows, share, seed)
    lines = ({"id": i, "instruction": r.instruction, "input": r.input, "output": r.output} for i, r in rows.items())
    write_lines(folder / "train.jsonl", lines)
    write_lines(
        folder / "truth.jsonl", ({"id": i, "kind": r.kind} | ({"of": r.of} if r.of else {}) for i, r in rows.items())
    )
    counts = Counter(row.kind for row in rows.values())
    clean = counts.pop("clean")
    return f"{folder}: {clean:,} clean rows, and {counts.total():,} of {len(counts)} kinds of noise"


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
