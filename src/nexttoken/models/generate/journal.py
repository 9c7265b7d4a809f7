"""The journal of a generation: a line for each written row, so that a killed one goes on where it stopped.

The first line says what was asked of which model; every other line is {key, id, output, num_tokens, finished, seconds}.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from nexttoken.errors import UserError, first_five
from nexttoken.models.generate.rows import GenerationPrompt, Written

HEAD = b'{"asked": '  # how a journal begins
FIELDS = {"output": str, "num_tokens": int, "finished": bool, "seconds": float}


def key(prompt: GenerationPrompt) -> str:
    """The same as long as a row's id and tokens are: a changed prompt is written anew."""
    tokens = prompt.token_ids.astype("<i4").tobytes()
    return hashlib.sha256(prompt.id.encode("utf-8", "surrogatepass") + b"\0" + tokens).hexdigest()[:32]


class Journal:
    """The rows that are written already, and a file that takes more: each is on the disk when `add` returns.

    `asked` is all that an answer depends on besides its prompt. Without a `path` rows are held in memory only. A
    context manager; nothing is created before the first row. Raises UserError for the journal of something else, with
    what differs.
    """

    def __init__(self, path: Path | None, asked: Mapping[str, Any]) -> None:
        self.path, self.asked = path, json.loads(json.dumps(asked))
        self.rows: dict[str, Written] = {}  # by key
        content = path.read_bytes() if path and path.exists() else b""
        self._size, self._whole = len(content), self._read(content)  # bytes, and those of lines that ended
        self._file: Any = None

    def _read(self, content: bytes) -> int:
        whole = content.rfind(b"\n") + 1  # a kill while writing leaves a last line without its end
        if not whole:
            self._check({"asked": self.asked} if HEAD.startswith(content[: len(HEAD)]) else None)
            return 0
        first, *lines = content[:whole].splitlines()
        self._check(_parsed(first))
        broken = []
        for number, line in enumerate(lines, start=2):
            if (row := _row(_parsed(line))) is None:
                broken.append(number)
            else:
                self.rows[row[0]] = row[1]
        if broken:
            print(
                f"{self.path}: {len(broken)} lines cannot be read ({first_five(broken)}); their rows are written anew"
            )
        return whole

    def _check(self, head: Any) -> None:
        if not isinstance(head, dict) or "asked" not in head:
            raise UserError(f"{self.path} is not a journal of written answers; give another path, or move it away")
        then, now = _flat(head["asked"]), _flat(self.asked)
        changed = [
            f"{name} {then.get(name)} -> {now.get(name)}" for name in {**then, **now} if then.get(name) != now.get(name)
        ]
        if changed:
            raise UserError(
                f"{self.path} holds answers to something else ({'; '.join(changed)}); ask for the same again to go on,"
                " or move it away to begin anew"
            )

    def add(self, key: str, row: Written) -> None:
        """Append one row. Returns when it is on the disk."""
        values = {"output": row.text, "num_tokens": row.num_tokens, "finished": row.finished, "seconds": row.seconds}
        self.rows[key] = row
        if self.path is None:
            return
        if self._file is None:
            self._open(self.path)
        self._append({"key": key, "id": row.id, **values})

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
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _row(line: Any) -> tuple[str, Written] | None:
    if not isinstance(line, dict) or not all(isinstance(line.get(name), kind) for name, kind in FIELDS.items()):
        return None
    if not isinstance(line.get("key"), str) or not isinstance(line.get("id"), str):
        return None
    return line["key"], Written(line["id"], line["output"], line["num_tokens"], line["finished"], line["seconds"])


def _flat(asked: Mapping[str, Any]) -> dict[str, str]:
    """`{"settings": {"seed": 1}}` -> `{"settings.seed": "1"}`: what differs can be named."""
    flat: dict[str, str] = {}
    for name, value in asked.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[name] = json.dumps(value)
    return flat
