"""What the gate command may be told, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nexttoken.commands.arguments import key_values
from nexttoken.errors import UserError

DEFAULTS = {
    "run": "",
    "max_share": "0.5",
    "tolerance": "0.5",
    "out": "",
    "again": "false",
    "base": "",
    "input_dir": "",
}


@dataclass(frozen=True)
class Arguments:
    """The run, how much may be searched, and where the result goes."""

    run: Path
    max_share: float
    tolerance: float
    out: Path
    again: bool
    base: str | None
    input_dir: str | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError for what is missing and for a value of another kind."""
        values = key_values(arguments, DEFAULTS)
        if not values["run"]:
            raise UserError("run= is missing; write run=output/<task>/<name>")
        if values["again"] not in ("true", "false"):
            raise UserError(f"again={values['again']!r} is not accepted: expected true or false")
        folder = Path(values["run"])
        return cls(
            folder,
            _number(values, "max_share", 1.0, "a share of the questions, 0 to 1"),
            _number(values, "tolerance", float("inf"), "standard errors, 0 or more"),
            Path(values["out"] or folder).expanduser(),
            values["again"] == "true",
            values["base"] or None,
            values["input_dir"] or None,
        )


def _number(values: Mapping[str, str], key: str, highest: float, expected: str) -> float:
    try:
        number = float(values[key])
    except ValueError:
        number = -1.0
    if not 0 <= number <= highest:
        raise UserError(f"{key}={values[key]!r} is not accepted: expected {expected}")
    return number
