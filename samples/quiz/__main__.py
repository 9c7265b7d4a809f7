"""Writes the sample quiz: `python -m samples.quiz [output_dir=...] [seed=0] [rows=2600]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands import arguments
from samples.quiz.generate import MAX_ROWS
from samples.quiz.write import write_sample_quiz

DEFAULTS = {"output_dir": "input/sample-quiz", "seed": "0", "rows": "2600"}
USAGE = """
python -m samples.quiz [output_dir=input/sample-quiz] [seed=0] [rows=2600]
Write train.jsonl (`rows` rows), test.jsonl, truth.jsonl and corpus/*.jsonl; the same seed gives the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    rows = arguments.whole_number("rows", values["rows"], DEFAULTS["rows"], 40, MAX_ROWS)
    print(write_sample_quiz(Path(values["output_dir"]), seed, rows))


if __name__ == "__main__":
    arguments.run(main, USAGE)
