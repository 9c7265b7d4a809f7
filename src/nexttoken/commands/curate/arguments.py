"""The command line of the curation: its own arguments, and the overrides of train.yaml among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexttoken.commands.arguments import whole_number
from nexttoken.errors import UserError

OWN = ("out", "licence", "processes", "skip_faulty")
MAX_PROCESSES = 64


@dataclass(frozen=True)
class Arguments:
    """The folder to write, the set's licence ("": look for it), how many processes, and what train.yaml is told."""

    out: Path
    overrides: tuple[str, ...]
    licence: str = ""
    processes: int = 2

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError without an `out`, and for one that exists: a curated set is never written over."""
        own: dict[str, str] = {}
        overrides = []
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key in OWN:
                own[key] = value
            else:
                overrides.append(argument)
        if not own.get("out"):
            raise UserError("the folder to write is missing; add out=input/<name>")
        out = Path(own["out"]).expanduser()
        if out.exists():
            raise UserError(f"{out} exists already; choose another out=... or remove it")
        if "skip_faulty" in own:
            overrides.append(f"task.skip_faulty={own['skip_faulty']}")
        processes = whole_number("processes", own.get("processes", "2"), "2", 1, MAX_PROCESSES)
        return cls(out, tuple(overrides), own.get("licence", ""), processes)

    @property
    def train_overrides(self) -> list[str]:
        """With the instruction task where none is named; nothing is trained, so no model is chosen."""
        names_task = any(override.startswith("task=") for override in self.overrides)
        return [*([] if names_task else ["task=instruct"]), *self.overrides]
