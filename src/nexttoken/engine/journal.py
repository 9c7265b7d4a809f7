"""A journal: a line for each row that is done, so that whoever is killed goes on where it stopped.

The first line says what was asked of which model; every other line is {key, id, ...}: a row with what was found.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from nexttoken.errors import UserError, first_five

HEAD = b'{"asked": '  # how a journal begins

Row = TypeVar("Row")


class Journal(Generic[Row]):
    """The rows that are done already, and a file that takes more.

    `asked` is all that an answer depends on besides its prompt. Without a `path` rows are held in memory only. A
    context manager; nothing is created before the first row. Raises UserError for the journal of something else, with
    what differs. Lines that were added survive a kill at once, and a power failure after `sync_seconds`.
    """

    sync_seconds = 0.0

    def __init__(self, path: Path | None, asked: Mapping[str, Any]) -> None:
        self.path, self.asked = path, json.loads(json.dumps(asked))
        self.rows: dict[str, Row] = {}  # by key
        content = path.read_bytes() if path and path.exists() else b""
        self._size, self._whole = len(content), self._read(content)  # bytes, and those of lines that ended
        self._file: Any = None
        self._synced = 0.0

    def _read(self, content: bytes) -> int:
        whole = content.rfind(b"\n") + 1  # a kill while writing leaves a last line without its end
        if not whole:
            self._check({"asked": self.asked} if HEAD.startswith(content[: len(HEAD)]) else None)
            return 0
        first, *lines = content[:whole].splitlines()
        self._check(_parsed(first))
        broken = []
        for number, line in enumerate(lines, start=2):
            parsed = _parsed(line)
            is_row = isinstance(parsed, dict) and isinstance(parsed.get("key"), str)
            row = self._row(parsed) if is_row and isinstance(parsed.get("id"), str) else None
            if row is None:
                broken.append(number)
            else:
                self.rows[parsed["key"]] = row
        if broken:
            print(
                f"{self.path}: {len(broken)} lines cannot be read ({first_five(broken)}); their rows are written anew"
            )
        return whole

    def _check(self, head: Any) -> None:
        if not isinstance(head, dict) or "asked" not in head:
            raise UserError(f"{self.path} is not a journal of answers; give another path, or move it away")
        then, now = _flat(head["asked"]), _flat(self.asked)
        changed = [
            f"{name} {then.get(name)} -> {now.get(name)}" for name in {**then, **now} if then.get(name) != now.get(name)
        ]
        if changed:
            raise UserError(
                f"{self.path} holds answers to something else ({'; '.join(changed)}); ask for the same again to go on,"
                " or move it away to begin anew"
            )

    def _row(self, line: Mapping[str, Any]) -> Row | None:
        """What a line says of its row; None where it cannot be understood."""
        raise NotImplementedError

    def _values(self, row: Row) -> dict[str, Any]:
        """A line without its key."""
        raise NotImplementedError

    def add(self, key: str, row: Row) -> None:
        """Append one row."""
        self.rows[key] = row
        if self.path is None:
            return
        if self._file is None:
            self._open(self.path)
        self._append({"key": key, **self._values(row)})

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._refuse_others(path)
        self._file.truncate(self._whole)
        if not self._whole:
            self._append({"asked": self.asked})

    def _refuse_others(self, path: Path) -> None:
        """Raises UserError where another process writes here, or has since the file was read: its lines would go."""
        import fcntl  # POSIX only

        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._size = -1
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise UserError(f"{path} is being written by another process; start again when that one has ended")

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")  # ASCII: lone surrogates in an id come back
        self._file.flush()
        if time.monotonic() - self._synced >= self.sync_seconds:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _flat(asked: Mapping[str, Any]) -> dict[str, str]:
    """`{"settings": {"seed": 1}}` -> `{"settings.seed": "1"}`: what differs can be named."""
    flat: dict[str, str] = {}
    for name, value in asked.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[name] = json.dumps(value)
    return flat
