"""Writes the sample competition: `python -m samples.preferences [output_dir=...] [seed=0] [rows=2000]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands import arguments
from samples.preferences.write import write_sample

DEFAULTS = {"output_dir": "input/sample-preferences", "seed": "0", "rows": "2000"}
USAGE = """
python -m samples.preferences [output_dir=input/sample-preferences] [seed=0] [rows=2000]
Write train.csv (`rows` rows), test.csv, sample_submission.csv and truth.csv; the same seed gives the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    rows = arguments.whole_number("rows", values["rows"], DEFAULTS["rows"], 8, 100_000)
    print(write_sample(Path(values["output_dir"]), seed, rows))


if __name__ == "__main__":
    arguments.run(main, USAGE)
