"""Check a submission file as the task of its run describes it; the ledger beside the file names the run.

python -m nexttoken submission submissions/<name>.csv

Arguments:
  path             the submission file
  run=...          the run that it was predicted with (default: as the ledger beside the file says)
  input_dir=...    folder of the test file and the sample submission (default: as in the run's training)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.data.targets import check_targets, make
from nexttoken.errors import UserError
from nexttoken.runs.folder import FOLD_NAME, FoldFolder
from nexttoken.runs.ledger import LEDGER, read_ledger
from nexttoken.settings import ALL
from nexttoken.tasks.preference import Preference

SAMPLE = Path("input/sample-preferences")


class SubmissionArguments(Arguments):
    paths: OnePath
    run: Path | None = None
    input_dir: Path | None = None


def main(arguments: Sequence[str]) -> None:
    given = SubmissionArguments.parse(arguments)
    print(check_submission(given.paths[0], given.input_dir, given.run))


def check_submission(path: Path, input_dir: Path | None = None, run: Path | None = None) -> str:
    """Return a line that says the file is valid. Raises UserError where it does not fit its task's files.

    A file without a run is one of the preference competition.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; expected a submission, which `python predict.py` writes")
    lines = [line for line in read_ledger(path.with_name(LEDGER)) if line.file == path.name and line.run]
    run = run or (Path(lines[-1].run) if lines else None)
    task = Preference(input_dir or SAMPLE) if run is None else task_of(run, input_dir)
    if not hasattr(task, "check"):
        raise UserError(
            f"{path}: the task {task.name} has no check of finished files; predict.py checks what it writes"
        )
    return f"{path}: valid, {task.check(path)}"


def task_of(run: Path, input_dir: Path | None) -> Any:
    """The task of a run, with other files in `input_dir`. Raises UserError for a folder without folds."""
    folds = sorted(fold for fold in run.glob("fold*") if FOLD_NAME.fullmatch(fold.name)) or [*run.glob(ALL)]
    if not folds:
        raise UserError(
            f"{run}, the run of this submission, has no fold; give its folder with run=..., or input_dir=..."
        )
    node = FoldFolder(folds[0]).config().get("task") or {}
    check_targets({"task": node})
    return make({**node, **({"input_dir": str(input_dir)} if input_dir else {})}, "task")
