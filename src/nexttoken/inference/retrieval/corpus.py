"""A corpus, a file or folder of texts, as passages, and index folders, each built once and named by its hash."""

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from nexttoken.data.files import hash_text
from nexttoken.data.text_files import SURROGATE
from nexttoken.data.whole_files import make_folder, put_in_place, scratch_folder
from nexttoken.errors import UserError, one_line, refuse_below_one
from nexttoken.inference.retrieval.corpus_files import FIX, files_below, pieces, texts_of
from nexttoken.prompts.token_cache import cache_dir
from nexttoken.tasks.surrogates import log_surrogates, replaced
from nexttoken.types import Passage

BLOCK = 1 << 20  # bytes read at once
FORMAT = 1  # increase it when the files of an index folder change

T = TypeVar("T")


@dataclass(frozen=True)
class Corpus:
    """Texts under `path`; those longer than `passage_characters` are cut into passages, at sentence ends if possible.

    Raises UserError at once when there is no text file at `path`.
    """

    path: str
    passage_characters: int = 400

    def __post_init__(self) -> None:
        refuse_below_one("passage_characters", self.passage_characters)
        if not Path(self.path).exists():
            raise UserError(f"the corpus {self.path} does not exist; {FIX}")
        if not any(path.stat().st_size for path in self.files):
            raise UserError(f"the corpus {self.path} is empty; {FIX}")

    @property
    def files(self) -> list[Path]:
        """All files in the order of their names, with those of subfolders and linked ones, without hidden ones."""
        root = Path(self.path)
        return [root] if root.is_file() else sorted(files_below(root))

    @property
    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of the files, which change whenever a file does."""
        return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files)

    def digest(self) -> str:
        """SHA-256 of names, contents and `passage_characters`: the same for a copy in another place."""
        sha = hashlib.sha256(str(self.passage_characters).encode())
        for path in self.files:
            sha.update(f"\n{self._name(path)} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    sha.update(block)
        return sha.hexdigest()

    def passages(self) -> Iterator[Passage]:
        """Every passage with its source as `file:line`; a lone surrogate becomes U+FFFD, and they are counted.

        Raises: UserError that names the line that cannot be read.
        """
        num_surrogates = 0
        for path in self.files:
            name = self._name(path)
            for line, title, text in texts_of(path, name):
                for piece in pieces(text, self.passage_characters):
                    passage = f"{title}\n{piece}" if title else piece
                    num_surrogates += len(SURROGATE.findall(passage))
                    yield Passage(replaced(passage), source=f"{name}:{line}")
        log_surrogates(num_surrogates)

    def _name(self, path: Path) -> str:
        root = Path(self.path)
        return replaced(path.name if root.is_file() else path.relative_to(root).as_posix())


@dataclass(frozen=True)
class CorpusRetriever:
    """A retriever that searches a corpus and saves its index in `index_dir` at the first search."""

    corpus: str
    num_hits: int = 5
    index_dir: str = "output/index"
    passage_characters: int = 400

    def __post_init__(self) -> None:
        refuse_below_one("retriever.num_hits", self.num_hits)

    def check(self) -> None:
        """Raise UserError when there is no corpus: called before anything is loaded."""
        Corpus(self.corpus, self.passage_characters)


@dataclass(frozen=True)
class PassageStore:
    """Passages in a folder, each read from disk when it is used; the positions of their lines are memory-mapped."""

    folder: Path

    def write(self, passages: Iterable[Passage]) -> None:
        starts = [0]
        with (self.folder / "passages.jsonl").open("wb") as file:
            for passage in passages:
                starts.append(starts[-1] + file.write(json.dumps(asdict(passage), ensure_ascii=False).encode() + b"\n"))
        np.save(self.folder / "starts.npy", np.array(starts, dtype=np.int64))

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.load(self.folder / "starts.npy", mmap_mode="r")  # (N + 1,) bytes

    @cached_property
    def _text(self) -> mmap.mmap:
        with (self.folder / "passages.jsonl").open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Passage:
        try:
            return Passage(**json.loads(self._text[self._starts[number] : self._starts[number + 1]]))
        except (ValueError, TypeError, IndexError, RecursionError, OSError) as error:
            raise unreadable_index(self.folder, error) from None


def open_index(
    corpus: Corpus,
    index_dir: str,
    kind: str,
    settings: Mapping[str, object],
    build: Callable[[PassageStore], None],
    load: Callable[[Path], T],
) -> tuple[T, PassageStore]:
    """The index `load`ed from the folder `index_dir`/`kind`-<hash>, which `build` fills once, and its passages.

    Two processes at once both build, and the first to finish leaves its folder; a process that is killed leaves none.
    Raises UserError when the corpus holds no text or the folder is damaged.
    """
    identity = json.dumps([FORMAT, corpus.digest(), settings], sort_keys=True)
    folder = Path(index_dir) / f"{kind}-{hash_text(identity)[:16]}"
    if not folder.is_dir():
        folder = _writable(index_dir) / folder.name
    if not folder.is_dir():
        _make_folder(folder, corpus, build)
    try:
        store = PassageStore(folder)
        _ = len(store)
        return load(folder), store
    except Exception as error:  # the retrievers' own formats have errors of many kinds
        raise unreadable_index(folder, error) from None


def unreadable_index(folder: Path, error: Exception) -> UserError:
    return UserError(f"the index {folder} cannot be read ({one_line(error)}); delete this folder, it is built again")


def _writable(index_dir: str) -> Path:
    """`index_dir`, or, where nothing can be written there, as below /kaggle/input, a folder in the user's cache."""
    try:
        make_folder(Path(index_dir))
        return Path(index_dir)
    except OSError as error:
        print(f"index: {cache_dir() / 'index'}, since {index_dir} cannot be written to ({error.strerror})")
        return cache_dir() / "index"


def _make_folder(folder: Path, corpus: Corpus, build: Callable[[PassageStore], None]) -> None:
    with scratch_folder(folder) as part:
        store = PassageStore(part)
        store.write(corpus.passages())
        if not len(store):
            raise UserError(f"the corpus {corpus.path} holds no text")
        build(store)
        try:
            put_in_place(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise


def best(scores: np.ndarray, num_hits: int) -> np.ndarray:
    """Indices of the `num_hits` highest of `scores` (N,), the highest first, the earlier of equal ones first."""
    num_hits = min(num_hits, len(scores))
    if not num_hits:
        return np.empty(0, dtype=np.int64)
    lowest = np.partition(scores, len(scores) - num_hits)[len(scores) - num_hits]
    candidates = np.flatnonzero(scores >= lowest)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:num_hits]
