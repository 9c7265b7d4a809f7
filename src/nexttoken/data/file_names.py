"""Which files of a folder a task's names and patterns mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nexttoken.errors import UserError, first_five


def matching(folder: Path, names: Sequence[str] | str, kind: str) -> list[Path]:
    """Return files in the order of `names`, each once; a plain name must be there (or packed), a pattern need not.

    Raises: UserError for a name without a file, and for two files of one name, which no row could tell apart.
    """
    found: dict[Path, None] = {}
    for name in _listed(names, kind):
        paths = sorted(path for path in _glob(folder, name, kind) if path.is_file())
        if not paths and not {*"*?["} & {*name}:
            packed = folder / f"{name}.gz"
            paths = [packed] if packed.is_file() else refuse_missing(folder, name, kind)
        found |= dict.fromkeys(paths)
    if len({path.name for path in found}) < len(found):
        raise UserError(f"{folder}: {kind}s of one name ({first_five(found)}); rename one of them")
    return list(found)


def _listed(names: Sequence[str] | str, kind: str) -> Sequence[str]:
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{kind}s are named {names}: expected a list of names or patterns, such as [train.jsonl]")
    return listed


def _glob(folder: Path, name: str, kind: str) -> list[Path]:
    """Raises UserError for a whole path, which belongs into input_dir, and for what is no pattern."""
    path = Path(name)
    if path.is_absolute():
        raise UserError(f"{name}: expected the name of a {kind} below {folder}; write input_dir={path.parent}")
    try:
        return list(folder.glob(name))
    except ValueError as error:
        raise UserError(f"{name!r} is no name or pattern of {kind}s ({error}); write train.jsonl or *.jsonl") from None


def refuse_missing(folder: Path, name: str, kind: str) -> NoReturn:
    raise UserError(
        f"{folder} has no file {name}: expected {kind}s; put it there, set input_dir, "
        "or name your files with task.train_files and task.test_files"
    )
