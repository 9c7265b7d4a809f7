"""Writes the instruction sample: `python -m samples.instruct [output_dir=...] [seed=0] [rows=400]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands import arguments
from samples.instruct.write import MAX_ROWS, write_sample_instruct

DEFAULTS = {"output_dir": "input/sample-instruct", "seed": "0", "rows": "400"}
USAGE = """
python -m samples.instruct [output_dir=input/sample-instruct] [seed=0] [rows=400]
Write train.jsonl (`rows` rows), test.jsonl and truth.jsonl; the same seed gives the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    rows = arguments.whole_number("rows", values["rows"], DEFAULTS["rows"], 20, MAX_ROWS)
    print(write_sample_instruct(Path(values["output_dir"]), seed, rows))


if __name__ == "__main__":
    arguments.run(main, USAGE)
