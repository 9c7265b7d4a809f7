"""Writes the sample marks: `python -m samples.marks [output_dir=...] [seed=0] [instructions=400]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands import arguments
from samples.marks.generate import MAX_INSTRUCTIONS
from samples.marks.write import write_sample_marks

DEFAULTS = {"output_dir": "input/sample-marks", "seed": "0", "instructions": "400"}
USAGE = """
python -m samples.marks [output_dir=input/sample-marks] [seed=0] [instructions=400]
Write train.jsonl (five answers to each instruction), test.jsonl (a tenth as many) and truth.jsonl; the same seed gives
the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    number = arguments.whole_number(
        "instructions", values["instructions"], DEFAULTS["instructions"], 10, MAX_INSTRUCTIONS
    )
    print(write_sample_marks(Path(values["output_dir"]), seed, number))


if __name__ == "__main__":
    arguments.run(main, USAGE)
