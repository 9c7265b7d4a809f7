"""Journals: files with one line per finished answer, so that a killed run continues where it stopped.

The first line is {"asked": settings of the run}; every other line is {key, id, ...}, one finished answer.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from nexttoken.data.whole_files import naming
from nexttoken.errors import UserError, first_five
from nexttoken.models.processes import num_ranks, rank
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.encoded import EncodedText

HEAD = b'{"asked": '  # the first bytes of every journal

Row = TypeVar("Row")


class Journal(Generic[Row]):
    """The finished answers by key, and the file to which new ones are appended. A context manager.

    `row_type` is a dataclass whose fields are the columns of a line. `identity` is all an answer depends on besides
    the prompt. Without a `path` answers are held in memory only; no file is created before the first answer.
    Every line is flushed at once, and synced to disk after `sync_seconds`.
    Raises UserError, naming the differences, if the file belongs to other settings.
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, Any], row_type: type[Row], sync_seconds: float = 0.0
    ) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))
        self.row_type: Any = row_type
        self.sync_seconds = sync_seconds
        self.rows: dict[str, Row] = {}
        content = path.read_bytes() if path and path.exists() else b""
        self._size, self._complete = len(content), self._read(content)  # bytes of the file, and of its complete lines
        self._file: Any = None
        self._synced = 0.0

    def _read(self, content: bytes) -> int:
        complete = content.rfind(b"\n") + 1  # a kill during a write leaves an incomplete last line
        head, *lines = content[:complete].splitlines() or [content]
        if complete or not HEAD.startswith(head[: len(HEAD)]):
            self._check_head(head)
        broken: list[int] = []
        for number, line in enumerate(lines, start=2):
            try:
                self._read_row(json.loads(line))
            except (KeyError, TypeError, ValueError, RecursionError):
                broken.append(number)
        if broken:
            numbers = first_five(broken)
            print(f"{self.path}: {len(broken)} lines cannot be read ({numbers}); their answers are computed again")
        return complete

    def _read_row(self, line: Any) -> None:
        """Raises KeyError, TypeError or ValueError if a field is missing or invalid."""
        columns: dict[str, Any] = {field.name: field.type for field in fields(self.row_type)}
        if not all(isinstance(line[name], kind) for name, kind in {"key": str, **columns}.items()):
            raise TypeError(f"a field of {line} has another type than {columns}")
        self.rows[line["key"]] = self.row_type(**{name: line[name] for name in columns})

    def _check_head(self, head: bytes) -> None:
        try:
            then, now = _flatten(json.loads(head)["asked"]), _flatten(self.identity)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise UserError(
                f"{self.path} is not a journal of answers; give another path or move the file away"
            ) from None
        if names := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
            changed = "; ".join(f"{name} {then.get(name)} -> {now.get(name)}" for name in names)
            raise UserError(
                f"{self.path} has answers of other settings ({changed}); use the same settings to continue, or move"
                " the file away to start again"
            )

    def add(self, key: str, row: Row) -> None:
        """Append one answer. Raises UserError if another process writes to the file or has written to it."""
        self.rows[key] = row
        if self.path is None:
            return
        if self._file is None:
            self._open(self.path)
        self._append({"key": key, **asdict(row)})  # type: ignore[call-overload]

    def _open(self, path: Path) -> None:
        import fcntl  # POSIX only

        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        is_locked = False
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_locked = True
        if is_locked or os.fstat(self._file.fileno()).st_size != self._size:
            raise UserError(f"{path} is being written by another process; start again when that one has ended")
        self._file.truncate(self._complete)
        if not self._complete:
            self._append({"asked": self.identity})

    def _append(self, line: Mapping[str, Any]) -> None:
        with naming(self._file.name):
            self._file.write(json.dumps(line).encode() + b"\n")  # ASCII: preserves lone surrogates in ids
            self._file.flush()
            if time.monotonic() - self._synced >= self.sync_seconds:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._size = self._complete = os.fstat(self._file.fileno()).st_size  # it may be written to once more
            with naming(self._file.name):  # closing writes again what a full disk did not take
                self._file.close()
            self._file = None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"settings": {"seed": 1}}` -> `{"settings.seed": "1"}`."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: json.dumps(value)}
    return flat


@dataclass(frozen=True, slots=True)
class LabelProbs:
    """The class probabilities of a prompt and the seconds that they took. Raises ValueError if one is not finite."""

    id: str
    probs: list
    seconds: float

    def __post_init__(self) -> None:
        if not self.probs or not all(isinstance(prob, float) and math.isfinite(prob) for prob in self.probs):
            raise ValueError(f"probabilities of {self.id} are not finite numbers")


class LabelJournal(Journal[LabelProbs]):
    """Journal of class probabilities, or of one loss a text. Without a path it is always empty.

    Batches are composed as if the journal were empty and are skipped only as a whole, so a resumed prediction equals an
    uninterrupted one to the last bit. The exception is a gate's second pass: prefixes of skipped prompts are not cached
    for it, so it is equal up to rounding.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], title: str | None = "") -> None:
        super().__init__(path, identity, LabelProbs, sync_seconds=1.0)
        self.title = title
        self.num_known = 0  # answers that were not computed again

    def lookup(self, prompts: Sequence[EncodedPrompt | EncodedText]) -> tuple[np.ndarray, np.ndarray] | None:
        """Saved probabilities (n, C) and seconds (n,) of `prompts`; None unless all of them are saved."""
        if not self.path or not all(_key(prompt) in self.rows for prompt in prompts):
            return None
        saved = [self.rows[_key(prompt)] for prompt in prompts]
        return np.array([answer.probs for answer in saved]), np.array([answer.seconds for answer in saved])

    def save(
        self, prompts: Sequence[EncodedPrompt | EncodedText], probs: np.ndarray, seconds: np.ndarray
    ) -> np.ndarray:
        """Append `probs` (n, C) and return those that count: a prompt that was saved before keeps its probabilities."""
        if self.path is None:
            return probs
        keys = [_key(prompt) for prompt in prompts]
        for prompt, key, row, share in zip(prompts, keys, probs, seconds, strict=True):
            if key not in self.rows and np.isfinite(row).all():
                self.add(key, LabelProbs(prompt.id, row.tolist(), float(share)))
        pairs = zip(keys, probs, strict=True)
        return np.array([self.rows[key].probs if key in self.rows else row for key, row in pairs])

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.num_known and self.title is not None:
            print(f"{self.title}{self.num_known} rows were answered before ({self.path})")


def _key(prompt: EncodedPrompt | EncodedText) -> str:
    """Hash of a prompt's tokens and options: the same prompt has the same key in any batch and order.

    Of a text its tokens, and those of them that are the answer.
    """
    more = prompt.learnt.tobytes() if isinstance(prompt, EncodedText) else f"{prompt.num_options} ".encode()
    content = more + prompt.token_ids.astype("<i4").tobytes()
    for branch in () if isinstance(prompt, EncodedText) else prompt.branches:
        content += f" {len(branch)} ".encode() + branch.astype("<i4").tobytes()
    return hashlib.sha256(content).hexdigest()[:32]


NO_JOURNAL = LabelJournal(None, {})


@dataclass(frozen=True)
class JournalFolder:
    """The folder of a prediction's journals (None: nothing is saved) and the identity of the model that answers."""

    folder: Path | None = None
    made_by: str = ""
    title: str | None = ""  # begins the line about rows that were answered before, such as "fold 1: "; None: no line
    known: dict[str, LabelJournal] = field(default_factory=dict, compare=False)  # by name: each file is read once

    def journal(self, identity: Mapping[str, Any]) -> LabelJournal:
        """This process's journal for the settings `identity`; no file is created yet."""
        if self.folder is None:
            return NO_JOURNAL
        identity = {"made_by": self.made_by, **identity, "process": f"{rank()} of {num_ranks()}"}
        name = hashlib.sha256(repr(sorted(identity.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if name not in self.known:
            self.known[name] = LabelJournal(self.folder / f"{name}.jsonl", identity, self.title)
        self.known[name].num_known = 0
        return self.known[name]
