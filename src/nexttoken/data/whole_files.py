"""Files and folders that appear whole or not at all, whenever a process is killed or the power fails."""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

PART = re.compile(r"\..*\.(\d+)(?:@(\w+))?\.part", re.S)  # the process, and a hash of the machine's name
LITTER_SECONDS = 24 * 3600.0  # a file of another machine that nobody has written to for so long


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """A context whose OSErrors name a file: the system does so where one is opened, and not for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None or isinstance(error, ConnectionError):  # a closed pipe's
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on any failure.

    A kill or a loss of power at any moment leaves either the old file or the new one, never a part.
    """
    part = _new_part(path)
    try:
        with naming(path):
            yield part
            put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` on success and is removed on any failure.

    A kill leaves the old folder, the new one or, between both, none, and never a part.
    """
    folder = folder.resolve()  # the target of a link, on the disk that it was moved to
    with scratch_folder(folder) as part:
        yield part
        remove(folder)
        put_in_place(part, folder)


def put_in_place(part: Path, path: Path) -> None:
    """Rename a file or folder once its content is on the disk. Raises OSError where `path` is a filled folder."""
    for written in (*part.rglob("*"), part):
        _sync(written)
    os.replace(part, path)
    _sync(path.parent)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside a path, which is gone at the end; after a kill, at the next call there."""
    part = _new_part(beside)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder that takes files, before hours of work. Raises OSError with its name where it is read-only."""
    try:
        with scratch_folder(folder / "check"):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with its read-only parts. Raises OSError where something stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        if not os.access(folder, os.W_OK):
            os.chmod(folder, 0o700)
    shutil.rmtree(path)


def _new_part(path: Path) -> Path:
    """A hidden path beside `path` that names this process and machine; those of ended processes are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(path.parent)
    return path.with_name(f".{path.name}.{os.getpid()}@{_host()}.part")


@cache
def _remove_litter(folder: Path) -> None:
    """Remove what killed processes left in `folder`, once: parts of this machine, and others after a day."""
    for part in folder.glob(".*.part"):
        owner = PART.fullmatch(part.name)
        with suppress(OSError):  # another user's, or removed by another process
            is_of_this_machine = owner and owner[2] in (None, _host())
            is_old = time.time() - part.stat().st_mtime > LITTER_SECONDS
            if owner and (is_old or (is_of_this_machine and not is_running(int(owner[1])))):
                remove(part)


def is_running(pid: int) -> bool:
    """True where this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


@cache
def _host() -> str:
    return sha256(socket.gethostname().encode()).hexdigest()[:6]


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk. Raises OSError with the path."""
    opened = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else naming(path):  # some file systems cannot sync a folder
            os.fsync(opened)
    finally:
        os.close(opened)
