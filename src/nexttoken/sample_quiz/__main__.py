"""Writes the sample quiz: `python -m nexttoken.sample_quiz [output_dir=...] [seed=0] [rows=2600]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken import arguments
from nexttoken.errors import UserError
from nexttoken.sample_quiz.generate import MAX_ROWS
from nexttoken.sample_quiz.write import write_sample_quiz

DEFAULTS = {"output_dir": "input/sample-quiz", "seed": "0", "rows": "2600"}
USAGE = """
python -m nexttoken.sample_quiz [output_dir=input/sample-quiz] [seed=0] [rows=2600]
Write train.jsonl (`rows` rows), test.jsonl, truth.jsonl and corpus/*.jsonl; the same seed gives the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = whole_number("seed", values["seed"], 0, 2**32 - 1)
    rows = whole_number("rows", values["rows"], 40, MAX_ROWS)
    print(write_sample_quiz(Path(values["output_dir"]), seed, rows))


def whole_number(key: str, text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise UserError(f"{key}={text} is no whole number from {low} to {high}; write {key}={DEFAULTS[key]}")
    return int(text)


if __name__ == "__main__":
    arguments.run(main, USAGE)
