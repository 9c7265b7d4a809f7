"""Writes the dialogue sample: `python -m samples.dialogue [output_dir=...] [seed=0] [rows=120]`."""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands import arguments
from samples.dialogue.write import write_sample_dialogue

DEFAULTS = {"output_dir": "input/sample-dialogue", "seed": "0", "rows": "120"}
USAGE = """
python -m samples.dialogue [output_dir=input/sample-dialogue] [seed=0] [rows=120]
Write train.jsonl (`rows` dialogues), test.jsonl and truth.jsonl; the same seed gives the same bytes.
"""


def main(given: Sequence[str]) -> None:
    """Raises UserError for an unknown key or a number out of range."""
    values = arguments.key_values(given, DEFAULTS)
    seed = arguments.whole_number("seed", values["seed"], DEFAULTS["seed"], 0, 2**32 - 1)
    rows = arguments.whole_number("rows", values["rows"], DEFAULTS["rows"], 12, 10_000)
    print(write_sample_dialogue(Path(values["output_dir"]), seed, rows))


if __name__ == "__main__":
    arguments.run(main, USAGE)
