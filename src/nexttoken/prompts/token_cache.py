"""The cache of tokenised rows: folds, both orders, sweeps and predictions tokenise the same texts only once.

It lies in $NEXTTOKEN_CACHE, else in the user's cache folder: never in a run, which may be read-only, nor in what a
notebook hands in. A row is found again by its content, the tokenizer, the prompt, the budget and the code that makes
rows.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nexttoken.data import sentences
from nexttoken.data.files import whole_file
from nexttoken.progress import Progress
from nexttoken.prompts import chat_templates, cutting, render
from nexttoken.prompts import prompt as prompts
from nexttoken.prompts import special_tokens as disarm
from nexttoken.prompts.token_file import KEY, TokenFile, TokenRow, write_rows
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import Example

LEAST = 2_000_000  # characters: fewer are tokenised within about a second, so they are not kept
LIMIT = 4 * 2**30  # bytes beside the newest file: beyond, what was not used for the longest time goes
CHUNK = 512  # examples that are rendered and tokenised together
MAKERS = (render, disarm, chat_templates, cutting, prompts, sentences)  # besides the encoder's own module

UTF8 = ("utf-8", "surrogatepass")

Make = Callable[[Sequence[Example]], Iterable[TokenRow]]


def token_rows(
    renderer: render.Renderer, examples: Sequence[Example], make: Make, form: str = "", chunk: int = CHUNK
) -> list[TokenRow]:
    """A row per example, made by `make` in chunks or found in the cache; `form` says what else `make` depends on.

    Where the cache cannot be used, which is said, all rows are made and held in memory.
    """
    if _is_short(examples) or not hasattr(renderer.tokenizer, "backend_tokenizer"):
        return list(_made(examples, make, chunk))
    try:
        return TokenCache(cache_dir(), fingerprint(renderer, form)).rows(examples, make, chunk)
    except OSError as error:
        print(f"tokens are held in memory: {error.filename or cache_dir()}: {error.strerror or error}")
        return list(_made(examples, make, chunk))


def cache_dir() -> Path:
    if named := os.environ.get("NEXTTOKEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "nexttoken"


def fingerprint(renderer: render.Renderer, form: str) -> str:
    """What the rows depend on besides their examples, as 32 hexadecimal digits."""
    tokenizer, template = renderer.tokenizer, str(renderer.chat_template)
    makers = (*MAKERS, sys.modules[type(renderer).__module__])
    code = [Path(str(module.__file__)).read_bytes() for module in makers]
    today = str(date.today()) if "strftime_now" in template else ""  # Llama 3's template tells the model the date
    versions = [version(name) for name in ("transformers", "tokenizers", "jinja2")]
    asked = [asdict(renderer.prompt), renderer.max_tokens, type(renderer).__name__, form, template, today]
    own = [tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map, type(tokenizer).__name__]
    return hashlib.sha256(repr([asked, own, code, versions]).encode(*UTF8)).hexdigest()[:32]


def content_key(example: Example) -> bytes:
    """16 bytes, the same for examples that are shown and answered alike, whatever their ids are."""
    return hashlib.blake2b(repr(_content(example)).encode(*UTF8), digest_size=KEY.itemsize).digest()


def _content(example: Example) -> tuple:
    shown = tuple(map(_content, example.demonstrations))
    own = (example.label, example.answer, example.tags.get(PREFIX))
    return tuple(example.fields.items()), own, shown


def _is_short(examples: Sequence[Example]) -> bool:
    left = LEAST
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
    """The rows of one fingerprint: files beside each other, each written whole by one call, with the rows new to it."""

    root: Path
    name: str

    def rows(self, examples: Sequence[Example], make: Make, chunk: int = CHUNK) -> list[TokenRow]:
        """Raises OSError where rows cannot be kept."""
        keys = np.frombuffer(b"".join(map(content_key, examples)), KEY)
        rows: list[TokenRow | None] = [None] * len(examples)
        for path in sorted(self.folder.glob("*.tokens")):
            self._fill(rows, keys, path)
        lacking = np.array([place for place, row in enumerate(rows) if row is None], dtype=int)
        _, firsts = np.unique(keys[lacking], return_index=True)
        new = np.sort(lacking[firsts])
        made = _made([examples[place] for place in new], make, chunk)
        if _is_short([examples[place] for place in new]):
            own = dict(zip(keys[new].tolist(), made, strict=True))
            return [row or own[key] for row, key in zip(rows, keys.tolist(), strict=True)]
        self._fill(rows, keys, self._write(keys[new], made))
        if None in rows:
            raise OSError(f"{self.folder} does not give back what is written there")
        return rows  # type: ignore[return-value]

    @property
    def folder(self) -> Path:
        return self.root / "tokens" / self.name

    def _fill(self, rows: list[TokenRow | None], keys: np.ndarray, path: Path) -> None:
        """Put the file's rows where there are none yet; a file that cannot be read has none."""
        lacking = np.array([place for place, row in enumerate(rows) if row is None], dtype=int)
        try:
            file = TokenFile.open(path)
        except (OSError, ValueError):
            return
        found = file.find(keys[lacking])
        for place, where in zip(lacking[found >= 0].tolist(), found[found >= 0].tolist(), strict=True):
            rows[place] = file.row(where)
        with suppress(OSError):  # somebody else's
            os.utime(path)

    def _write(self, keys: np.ndarray, made: Iterator[TokenRow]) -> Path:
        """Named after its keys: two processes that write the same rows at once write the same file."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.tokens"
        with whole_file(path) as part, part.open("wb") as file:
            write_rows(file, zip(keys, made, strict=True))
        self._forget_oldest(path)
        return path

    def _forget_oldest(self, own: Path) -> None:
        """Keep the cache within its limit; a file that is still mapped somewhere lives on there."""
        room = LIMIT
        with suppress(OSError):  # another process does the same
            files = [(path.stat(), path) for path in self.root.glob("tokens/*/*") if path != own]
            for stat, path in sorted(files, key=lambda pair: -pair[0].st_mtime):
                room -= stat.st_size
                if room < 0:
                    path.unlink()
