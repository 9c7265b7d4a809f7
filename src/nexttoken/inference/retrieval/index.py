"""Index folders, one for each corpus and setting: built once, named by their hash, complete or not there at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from nexttoken.data.files import hash_text
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.corpus import Corpus, PassageStore

FORMAT = 1  # increase it when the files of a folder change

T = TypeVar("T")


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
        _make_folder(folder, corpus, build)
    try:
        return load(folder), PassageStore(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the index {folder} cannot be read ({error}); delete this folder, it is built again") from None


def _make_folder(folder: Path, corpus: Corpus, build: Callable[[PassageStore], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        store = PassageStore(part)
        store.write(corpus.passages())
        if not len(store):
            raise UserError(f"the corpus {corpus.path} holds no text")
        build(store)
        part.chmod(0o755)  # mkdtemp gives access to the owner only
        try:
            os.rename(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def best(scores: np.ndarray, num_hits: int) -> np.ndarray:
    """Indices of the `num_hits` highest of `scores` (N,), the highest first, the earlier of equal ones first."""
    num_hits = min(num_hits, len(scores))
    if not num_hits:
        return np.empty(0, dtype=np.int64)
    lowest = np.partition(scores, len(scores) - num_hits)[len(scores) - num_hits]
    candidates = np.flatnonzero(scores >= lowest)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:num_hits]
