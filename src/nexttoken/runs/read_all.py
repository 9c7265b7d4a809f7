"""All folds at or below a folder: the finished ones are read, the others are listed with what is wrong."""

from dataclasses import dataclass
from pathlib import Path

from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.read import checked_fold, find_folds, group_into_runs, is_open, read_fold
from nexttoken.runs.scored_runs import Fold, Run

UNFINISHED = "not finished: it has no metrics.json; the command that began it goes on"


@dataclass(frozen=True)
class Unread:
    """A folder of a fold or a run that could not be read, and the reason in words."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class ReadRuns:
    """The runs of closed tasks, the fold folders of open ones, and what could not be read."""

    runs: tuple[Run, ...]
    open_folds: tuple[Path, ...]
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
        except UserError as error:
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
            runs += group_into_runs(path, of_folder)
        except UserError as error:  # its folds contradict each other
            unread.append(Unread(folder, str(error)))
    return ReadRuns(tuple(runs), tuple(opened), tuple(sorted(unread, key=lambda one: str(one.folder))))
