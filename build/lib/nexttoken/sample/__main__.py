"""Writes the sample competition: `python -m nexttoken.sample [output_dir=input/sample-preferences] [seed=0] [rows=2000]`."""

import sys
from pathlib import Path

from nexttoken.errors import UserError
from nexttoken.sample.write import write_sample

DEFAULTS = {"output_dir": "input/sample-preferences", "seed": "0", "rows": "2000"}


def main(arguments: list[str]) -> None:
    """Raises UserError for an unknown key or a value that is no whole number."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        raise UserError(f"unknown setting {', '.join(unknown)}; expected {', '.join(f'{key}=' for key in DEFAULTS)}")
    settings = DEFAULTS | given
    for key in ("seed", "rows"):
        if not settings[key].isdecimal():
            raise UserError(f"{key}={settings[key]} is no whole number; give for example {key}={DEFAULTS[key]}")
    folder = Path(settings["output_dir"])
    print(write_sample(folder, seed=int(settings["seed"]), num_train=int(settings["rows"])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
