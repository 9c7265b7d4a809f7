"""Locks: one process at a time trains a fold, and one writes a submission; a second one is told so."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from nexttoken.data.whole_files import naming
from nexttoken.errors import UserError


@dataclass(frozen=True)
class FoldLock:
    """A hidden file beside the fold, locked by the operating system while its process lives.

    It names the machine, the process, its start in clock ticks, which tells it from a later process of the same
    number, and the time. Of this machine's ended processes it is taken over.
    """

    fold_dir: Path

    @property
    def path(self) -> Path:
        fold_dir = self.fold_dir.resolve()  # a linked fold has one lock, whichever path names it
        return fold_dir.with_name(f".{fold_dir.name}.lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, and remove its file at the end. Raises UserError where another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as file:
            file.truncate(0)
            pid = os.getpid()
            owner = f"{socket.gethostname()} {pid} {_start_of(pid)} {datetime.now():%Y-%m-%dT%H:%M:%S}\n"
            with naming(self.path):
                os.write(file.fileno(), owner.encode())  # at once: closing would write again what a full disk did not
            try:
                yield
            finally:
                with suppress(OSError):  # the work is done or has failed already; an unlocked file holds nobody up
                    self.path.unlink(missing_ok=True)

    def refuse_held(self) -> None:
        """Raise UserError where another process holds the lock; nothing is written."""
        with suppress(FileNotFoundError), self.path.open() as file:
            self._refuse_owner(file)

    def remove_ended(self) -> None:
        """Remove the lock of an ended process of this machine, which another machine cannot know to have ended."""
        with suppress(FileNotFoundError, UserError), self.path.open("r+") as file:
            self._refuse_owner(file)
            self.path.unlink()

    def _open(self) -> IO[str]:
        """The file, locked and not removed meanwhile by the process that held it before."""
        while True:
            file = self.path.open("a+")
            try:
                self._refuse_owner(file)
                if self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(file.fileno())):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _refuse_owner(self, file: IO[str]) -> None:
        """Lock `file`. Raises UserError where its owner lives, or may live on another machine."""
        import fcntl  # POSIX only

        is_locked, knows_locks = False, True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_locked = True
        except OSError:  # a file system without locks: the process number decides
            knows_locks = False
        file.seek(0)
        host, pid, start, since = (file.read().split() + [""] * 4)[:4]
        here = socket.gethostname()
        lives = is_locked or (not knows_locks and bool(start) and _start_of(pid) == start)
        if not lives and host in ("", here):
            return
        who = f"process {pid or 'of another command'} on {host or here}, since {since.replace('T', ' ') or 'just now'}"
        fix = f"wait for it or end it (kill {pid})" if host in ("", here) else "wait for it, or end it there"
        stale = f"; if it has ended, remove {self.path}" if host not in ("", here) else ""
        raise UserError(f"{self.fold_dir} is being trained by {who}; {fix}, or choose another name=...{stale}")


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file at `path`; one that comes second waits. The lock file stays.

    A waiting process would lock a removed file, which the next process does not see.
    """
    import fcntl  # POSIX only; reading works everywhere

    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def written_alone(path: Path) -> Iterator[None]:
    """A context in which no other command writes the submission. Raises UserError where one does so already."""
    import fcntl  # POSIX only

    path.with_name("written").mkdir(exist_ok=True)
    with (path.with_name("written") / f"{path.name}.lock").open("a") as file:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what = f"{path} is being written by another command"
                raise UserError(f"{what}; wait for it or end it, or choose another name=...") from None
        yield


def _start_of(pid: int | str) -> str:
    """The start of a process in clock ticks since the machine's, "" where it is not known."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""
