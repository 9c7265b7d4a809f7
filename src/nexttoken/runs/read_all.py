"""All folds at or below a folder: the finished ones are read, the others are listed with what is wrong."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.read import checked_fold, find_folds, group_into_runs, is_open, read_fold, read_groups
from nexttoken.runs.read_open import OpenRun, open_runs_of
from nexttoken.runs.scored_runs import Fold, Run

UNFINISHED = "not finished: it has no metrics.json; the command that began it goes on"


@dataclass(frozen=True)
class Unread:
    """A folder of a fold or a run that could not be read, and the reason in words."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class ReadRuns:
    """The runs of closed tasks, those of open ones, and what could not be read."""

    runs: tuple[Run, ...]
    open_runs: tuple[OpenRun, ...]
    unread: tuple[Unread, ...]


def read_all(path: Path) -> ReadRuns:
    """Read every fold at or below `path`, damaged ones apart. Raises UserError where no fold is there at all."""
    finished, unread, closed, opened = find_folds([path], "metrics.json"), list[Unread](), list[Path](), list[Path]()
    known = {folder.resolve() for folder in finished}
    begun = [folder for folder in find_folds([path], "config.yaml") if folder.resolve() not in known]
    unread += [Unread(folder, UNFINISHED) for folder in begun]
    for folder in finished:
        try:
            (opened if is_open(checked_fold(folder)) else closed).append(folder)
        except (UserError, OSError, UnicodeError) as error:
            unread.append(Unread(folder, str(error)))
    if not finished and not begun:
        raise UserError(f"{path} holds no run (<name>/fold<k>/metrics.json); run python train.py fold=0 first")
    folds: dict[Path, list[Fold]] = {}
    for folder in closed:
        try:
            FoldFolder(folder).config()
            folds.setdefault(folder.parent, []).append(read_fold(folder))
        except UserError as error:
            unread.append(Unread(folder, str(error)))
    runs: list[Run] = []
    for folder, of_folder in folds.items():
        try:
            read_groups(folder)  # every section needs them
            runs += group_into_runs(path, of_folder)
        except UserError as error:  # its folds contradict each other
            unread.append(Unread(folder, str(error)))
    open_runs, unread_folds = _read_open(opened)
    unread = sorted([*unread, *unread_folds], key=lambda one: str(one.folder))
    return ReadRuns(tuple(runs), tuple(open_runs), tuple(unread))


def _read_open(folders: Sequence[Path]) -> tuple[list[OpenRun], list[Unread]]:
    """The runs of these folds of open tasks; folds that are broken, or of a run there twice, apart."""
    with suppress(UserError):  # fold by fold below
        return _checked_open(folders), []
    sound, runs, unread = list[Path](), list[OpenRun](), list[Unread]()
    for folder in folders:
        try:
            runs = _checked_open([*sound, folder])
            sound.append(folder)
        except UserError as error:
            unread.append(Unread(folder, str(error)))
    return runs, unread


def _checked_open(folders: Sequence[Path]) -> list[OpenRun]:
    runs = open_runs_of(folders)
    for run in runs:
        assert len(run.rows)  # reading them refuses a row of two folds
    return runs
