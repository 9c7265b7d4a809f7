"""Checks of a run on several machines: they share the folder that is written to, and have the same rows and weights."""

import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from nexttoken.data.files import hash_text
from nexttoken.errors import UserError, first_five
from nexttoken.models.places import is_first, num_machines, rank
from nexttoken.models.processes import from_first, gather_lists
from nexttoken.runs.folder import FoldFolder, RunFolder, hash_examples
from nexttoken.types import Example

SEEN_SECONDS = 15.0  # for a file to appear on another machine: network folders show new ones with a delay


def share_fold(fold: FoldFolder) -> None:
    """Make a fold ready to be trained by several machines; all processes must call this.

    A lock that an ended process of one of them has left is removed. Raises UserError where a process does not see what
    process 0 writes.
    """
    if num_machines() > 1:
        fold.lock.remove_ended()
        refuse_separate(fold.path)


def refuse_separate(folder: Path) -> None:
    """Raise UserError where a process does not see what process 0 writes to `folder`; all processes must call this."""
    if num_machines() == 1:
        return
    host, note = from_first(lambda: (socket.gethostname(), _leave_note(folder)))
    until = time.monotonic() + SEEN_SECONDS
    while not note.exists() and time.monotonic() < until:
        time.sleep(0.1)
    blind = gather_lists([] if note.exists() else [f"process {rank()} on {socket.gethostname()}"])
    if is_first():
        note.unlink()
    if blind:
        raise UserError(
            f"{folder} is not shared by all machines: {first_five(blind)} cannot see what process 0 on {host} writes"
            " there; give a folder of a file system that all of them have"
        )


def _leave_note(folder: Path) -> Path:
    """A new file in the folder, or in the one that it will be made in."""
    place = next(one for one in (folder, *folder.parents) if one.is_dir())
    note = place / f".seen-by-all-{uuid.uuid4().hex}"
    note.touch()
    return note


def refuse_other_folds(run: RunFolder) -> None:
    """Raise UserError where a machine has other trainings in its copy of the run."""
    if num_machines() > 1:
        trainings = [path.read_text() for path in sorted(run.path.glob("*/metrics.json"))]
        refuse_differences({f"the folds of {run.path}": "".join(trainings)})


def same_rows(examples: list[Example]) -> list[Example]:
    """The examples. Raises UserError where another machine has others."""
    if num_machines() > 1:
        refuse_differences({"the rows": hash_examples(examples)})
    return examples


def refuse_differences(texts: Mapping[str, str]) -> None:
    """Raise UserError where a named text of this run, such as the rows' hash, is another one on another machine.

    All processes must call this, with the same names.
    """
    if num_machines() == 1:
        return
    for name, text in texts.items():
        hosts = gather_lists([(hash_text(text), socket.gethostname())])
        if others := sorted({host for code, host in hosts if code != hosts[0][0]}):
            raise UserError(
                f"{first_five(others)}: {name} differ from those of process 0 on {hosts[0][1]}; give every machine the"
                " same files, packages and command"
            )
