"""Writes a noisy instruction set: `python -m benchmarks.curation_noise out=... [rows=20000] [noise=26] [seed=0]`."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.curation_noise.write import write_sample_noise
from nexttoken.commands import arguments
from nexttoken.errors import UserError

DEFAULTS = {"out": "", "rows": "20000", "noise": "26", "seed": "0"}
USAGE = """
python -m benchmarks.curation_noise out=output/noisy [rows=20000] [noise=26] [seed=0]
Write train.jsonl and truth.jsonl: `rows` Japanese instructions, of which `noise` per cent are faulty in known ways.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key, a missing `out`, or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    if not values["out"]:
        raise UserError("the folder to write is missing; add out=output/noisy")
    rows = arguments.whole_number("rows", values["rows"], DEFAULTS["rows"], 100, 10_000_000)
    noise = arguments.whole_number("noise", values["noise"], DEFAULTS["noise"], 1, 50)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    print(write_sample_noise(Path(values["out"]), rows, noise / 100, seed))


if __name__ == "__main__":
    arguments.run(main, USAGE)
