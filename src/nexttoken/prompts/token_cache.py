"""A cache of tokenised examples: folds, both orders, sweeps and predictions tokenise the same texts only once.

It is in $NEXTTOKEN_CACHE or in the user's cache folder, not in a run's folder, which may be read-only. Its key is the
example's content, the tokenizer, the prompt, the budget and the code of the encoder.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nexttoken.data import words
from nexttoken.data.files import cache_dir, whole_file
from nexttoken.progress import Progress
from nexttoken.prompts import chat_templates, cutting, prompt, render, sandbox, special_tokens
from nexttoken.prompts.token_file import KEY, TokenFile, TokenRow, write_rows
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import Example

MIN_CHARACTERS = 2_000_000  # fewer are tokenised within about a second, so they are not cached
MAX_BYTES = 4 * 2**30  # without the newest file; the least recently used files above it are deleted
CHUNK = 512  # examples that are rendered and tokenised together
MAKERS = (
    render,
    chat_templates,
    sandbox,
    special_tokens,
    cutting,
    prompt,
    words,
)  # code that rows depend on, besides the encoder's

UTF8 = ("utf-8", "surrogatepass")

Make = Callable[[Sequence[Example]], Iterable[TokenRow]]


def token_rows(
    renderer: render.Renderer, examples: Sequence[Example], make: Make, form: str = "", chunk: int = CHUNK
) -> list[TokenRow]:
    """Return a row per example, from the cache or from `make`, which takes a chunk and also depends on `form`.

    If the cache cannot be used, a line is printed and all rows are made in memory.
    """
    if MEMORY:
        return MEMORY[0].rows(renderer, examples, lambda: list(_made(examples, make, chunk)), form)
    if _is_short(examples) or not hasattr(renderer.tokenizer, "backend_tokenizer"):
        return list(_made(examples, make, chunk))
    try:
        return TokenCache(cache_dir(), fingerprint(renderer, form)).rows(examples, make, chunk)
    except OSError as error:
        print(f"tokens are not cached: {error.filename or cache_dir()}: {error.strerror or error}; set NEXTTOKEN_CACHE")
        return list(_made(examples, make, chunk))


@dataclass
class LatestRows:
    """The rows of the examples that were tokenised last, which every fold with the same encoder asks for."""

    key: tuple[render.Renderer, str, Sequence[Example]] | None = None
    latest: list[TokenRow] = field(default_factory=list)

    def rows(
        self, renderer: render.Renderer, examples: Sequence[Example], make: Callable[[], list[TokenRow]], form: str
    ) -> list[TokenRow]:
        if self.key is None or self.key[:2] != (renderer, form) or self.key[2] != examples:
            self.latest, self.key = [], None  # freed before the new ones are made
            self.latest, self.key = make(), (renderer, form, examples)
        return self.latest


MEMORY: list[LatestRows] = []  # the innermost `tokens_in_memory`, if any


@contextmanager
def tokens_in_memory() -> Iterator[None]:
    """Within this context tokens go to no file: shards of millions of rows would fill the cache, each read once."""
    MEMORY.insert(0, LatestRows())
    try:
        yield
    finally:
        MEMORY.pop(0)


def fingerprint(renderer: render.Renderer, form: str) -> str:
    """Hash of everything that rows depend on except their examples: 32 hexadecimal digits."""
    tokenizer, template = renderer.tokenizer, renderer.chat.source if renderer.chat else ""
    makers = (*MAKERS, sys.modules[type(renderer).__module__])
    code = [Path(str(module.__file__)).read_bytes() for module in makers]
    versions = [version(name) for name in ("transformers", "tokenizers", "jinja2")]
    request = [asdict(renderer.prompt), renderer.max_tokens, type(renderer).__name__, form, template]
    identity = [tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map, type(tokenizer).__name__]
    return hashlib.sha256(repr([request, identity, code, versions]).encode(*UTF8)).hexdigest()[:32]


def content_key(example: Example) -> bytes:
    """Hash of an example's content without its id: 16 bytes."""
    return hashlib.blake2b(repr(_content(example)).encode(*UTF8), digest_size=KEY.itemsize).digest()


def _content(example: Example) -> tuple:
    answer = (example.label, example.answer, example.learns, example.tags.get(PREFIX))
    return tuple(example.fields.items()), answer, tuple(map(_content, example.demonstrations))


def _is_short(examples: Sequence[Example]) -> bool:
    left = MIN_CHARACTERS
    for example in examples:
        for shown in (example, *example.demonstrations):
            left -= sum(len(turn) for turns in shown.fields.values() for turn in turns) + len(shown.answer or "")
        if left < 0:
            return False
    return True


def _made(examples: Sequence[Example], make: Make, chunk: int) -> Iterator[TokenRow]:
    with Progress(len(examples), "tokenise") as progress:
        for start in range(0, len(examples), chunk):
            part = examples[start : start + chunk]
            yield from make(part)
            progress.advance(len(part))


@dataclass(frozen=True)
class TokenCache:
    """The rows of one fingerprint, in a folder of files. Each call adds a file with its new rows."""

    root: Path
    name: str

    def rows(self, examples: Sequence[Example], make: Make, chunk: int = CHUNK) -> list[TokenRow]:
        """Return a row per example. Raises OSError if rows cannot be saved."""
        keys = np.frombuffer(b"".join(map(content_key, examples)), KEY)
        rows: list[TokenRow | None] = [None] * len(examples)
        for path in sorted(self.folder.glob("*.tokens")):
            self._fill(rows, keys, path)
        lacking = np.array([place for place, row in enumerate(rows) if row is None], dtype=int)
        _, firsts = np.unique(keys[lacking], return_index=True)
        new = np.sort(lacking[firsts])
        made = _made([examples[place] for place in new], make, chunk)
        if _is_short([examples[place] for place in new]):
            row_of = dict(zip(keys[new].tolist(), made, strict=True))
            return [row or row_of[key] for row, key in zip(rows, keys.tolist(), strict=True)]
        self._fill(rows, keys, self._write(keys[new], made))
        if None in rows:
            raise OSError(f"{self.folder} does not return the rows that were written")
        return rows  # type: ignore[return-value]

    @property
    def folder(self) -> Path:
        return self.root / "tokens" / self.name

    def _fill(self, rows: list[TokenRow | None], keys: np.ndarray, path: Path) -> None:
        """Fill missing rows from the file, if it can be read."""
        lacking = np.array([place for place, row in enumerate(rows) if row is None], dtype=int)
        try:
            file = TokenFile.open(path)
        except (OSError, ValueError):
            return
        found = file.find(keys[lacking])
        for place, where in zip(lacking[found >= 0].tolist(), found[found >= 0].tolist(), strict=True):
            rows[place] = file.row(where)
        with suppress(OSError):  # another user's file
            os.utime(path)

    def _write(self, keys: np.ndarray, made: Iterator[TokenRow]) -> Path:
        """Write a file named after its keys: two processes that write the same rows write the same file."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.tokens"
        with whole_file(path) as part, part.open("wb") as file:
            write_rows(file, zip(keys, made, strict=True))
        delete_oldest(self.root.glob("tokens/*/*"), path)
        return path


def delete_oldest(files: Iterable[Path], newest: Path) -> None:
    """Keep a cache's files within MAX_BYTES; a process that has mapped a deleted file can still read it."""
    left = MAX_BYTES
    with suppress(OSError):  # another process may delete them, too
        others = [(path.stat(), path) for path in files if path != newest]
        for stat, path in sorted(others, key=lambda pair: -pair[0].st_mtime):
            left -= stat.st_size
            if left < 0:
                path.unlink()
