"""The arguments of a command as a pydantic class, and the call of a command with its errors on one line."""

import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field

from nexttoken.commands.entry import HELP
from nexttoken.commands.terminal import fault_of_machine, show_log, stop, take_place, until_nobody_reads
from nexttoken.data.checked_settings import validated
from nexttoken.data.secrets import refuse_secret_arguments
from nexttoken.errors import UserError, first_five, nearest
from nexttoken.models.allocator import keep_freed_memory, refuse_low_limit
from nexttoken.models.peers import among_peers
from nexttoken.progress import Deadline
from nexttoken.settings import Checked

if TYPE_CHECKING:
    from nexttoken.runs.config import Changes
    from nexttoken.runs.loaded import LoadedRun


def refuse_existing(path: Path) -> Path:
    """Return `path`, with ~ as the home folder. Raises UserError if it exists: results are never overwritten."""
    path = path.expanduser()
    if path.exists():
        raise UserError(f"{path} exists already; choose another out=... or remove it")
    return path


def refuse_several(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return `paths`. Raises UserError where there is more than one."""
    if len(paths) > 1:
        raise UserError(f"{len(paths)} paths are given ({first_five(paths)}), expected one; quote a path with spaces")
    return paths


NewPath = Annotated[Path, AfterValidator(refuse_existing)]
RunPath = Annotated[Path, Field(examples=["output/<task>/<name>"])]
OnePath = Annotated[tuple[Path, ...], AfterValidator(refuse_several)]


class Arguments(Checked):
    """The `key=value` arguments of a command: a field for each key, checked before anything is read.

    A field `paths` takes the arguments without a key. A field `overrides` takes every argument that no other field
    has, for train.yaml. The error for a missing argument shows the first of its field's `examples`.
    """

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises UserError for an unknown, missing, repeated or unacceptable argument, in one line."""
        refuse_secret_arguments(arguments)
        fields = {info.alias or name: info for name, info in cls.model_fields.items()}
        keys = fields.keys() - {"paths", "overrides"}
        values: dict[str, Any] = {}
        for argument in arguments:
            key, sign, value = argument.partition("=")
            if argument.startswith("-"):
                raise UserError(f"unknown option {argument!r}; arguments are key=value or paths, --help shows them")
            if sign and key in keys:
                if key in values:
                    raise UserError(f"argument {key}= is given twice; give it once")
                if not value:
                    raise UserError(f"argument {argument!r} has no value; write {key}=..., or leave it out")
                values[key] = value
            elif "overrides" in fields:
                values.setdefault("overrides", []).append(argument)
            elif "paths" in fields and not re.match(r"\w+=", argument):  # a path may hold a = further on
                values.setdefault("paths", []).append(argument)
            elif keys:
                raise UserError(f"unknown argument {argument!r}, expected key=value; {nearest(key, keys)}")
            else:
                raise UserError(f"unknown argument {argument!r}; the command takes none, so leave it out")
        for name, info in fields.items():
            if info.is_required() and name not in values:
                missing = "a path is missing" if name == "paths" else f"{name}= is missing"
                fix = f"write {name}={info.examples[0]}" if info.examples else "--help shows how the command is called"
                raise UserError(f"{missing}; {fix}")
        return validated(cls, values)


class RunArguments(Arguments):
    """A trained run, and where its base model and its data are on this machine."""

    run: RunPath
    base: str | None = None
    input_dir: str | None = None
    trust_remote_code: bool = False

    def load(self, changes: "Changes | None" = None) -> "LoadedRun":
        """The run, asked with `changes`. Raises UserError for a run that is not finished or cannot be read."""
        from nexttoken.runs.folder import RunFolder
        from nexttoken.runs.loaded import UNCHANGED, LoadedRun

        given = {"base": self.base, "trust_remote_code": self.trust_remote_code}
        return LoadedRun.load(RunFolder(self.run), self.input_dir, changes=changes or UNCHANGED, **given)  # type: ignore[arg-type]


def run(command: Callable[[Sequence[str]], None], usage: str | None, arguments: Sequence[str] | None = None) -> None:
    """Call `command` with `arguments` (None: sys.argv); print `usage` for --help, and a UserError as its one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    Deadline.note_program_start()
    keep_freed_memory()
    take_place()
    show_log(sys.stderr)
    if HELP & {*arguments}:
        print(str(usage).strip())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended command removes its hidden folders
    try:
        refuse_low_limit()
        with until_nobody_reads(), among_peers():
            command(arguments)
    except UserError as error:
        stop(str(error), 2)
    except Exception as error:
        if line := fault_of_machine(error):
            stop(line, 2)
        raise
