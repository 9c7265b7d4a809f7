"""What the judge's command may be told, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexttoken.commands.arguments import key_values, whole_number
from nexttoken.errors import UserError, nearest
from nexttoken.report.ranking import MEASURES

DEFAULTS = {
    "judge": "",
    "rows": "0",
    "by": "",
    "rubric": "",
    "out": "",
    "input_dir": "",
    "base": "",
    "data": "",
    "task": "",
}
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Arguments:
    """Runs to compare, or data to mark; who judges, how many answers are generated, and where the result goes."""

    paths: tuple[Path, ...]
    judge: Path | None
    rows: int  # outputs wanted per fold; 0: those that are there
    by: str
    rubric: str
    out: Path | None
    input_dir: str | None
    base: str | None
    data: str
    task: str

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError for what is missing, unknown, or does not go together."""
        paths = tuple(Path(argument) for argument in arguments if "=" not in argument)
        values = key_values([argument for argument in arguments if "=" in argument], DEFAULTS)
        if bool(paths) == bool(values["data"]):
            raise UserError(
                "expected run folders, such as output/dialogue/*, or data=... of which the rows are marked: one of both"
            )
        if missing := [path for path in paths if not path.exists()]:
            raise UserError(f"{missing[0]} is not there; give run folders such as output/dialogue/*")
        if values["data"] and not (values["judge"] and values["out"] and values["task"]):
            raise UserError(
                f"data={values['data']} needs task=, judge= and out=; write task=dialogue judge=output/marks/<name> "
                "out=marks.csv"
            )
        if values["by"] and values["by"] not in MEASURES:
            raise UserError(f"by={values['by']} is no measure; {nearest(values['by'], MEASURES)}")
        return cls(
            paths,
            Path(values["judge"]) if values["judge"] else None,
            whole_number("rows", values["rows"], "50", 0, MOST_ROWS),
            values["by"],
            _rubric(values["rubric"]),
            Path(values["out"]).expanduser() if values["out"] else None,
            values["input_dir"] or None,
            values["base"] or None,
            values["data"],
            values["task"],
        )


def _rubric(given: str) -> str:
    """A rubric as given: the text of a file of that name, else the words themselves."""
    is_file = len(given) < 256 and given.strip() and Path(given).is_file()
    return Path(given).read_text(encoding="utf-8").strip() if is_file else given
