"""Index folders: one for each content and setting, built once, found again by their hash, whole or not there at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.retrieval.corpus import Corpus, PassageStore

FORMAT = 1  # raise it when the files of a folder change


def index_folder(
    corpus: Corpus, index_dir: str, kind: str, settings: Mapping[str, object], build: Callable[[PassageStore], None]
) -> Path:
    """The folder `index_dir`/`kind`-<hash>, with its passage store and what `build` wrote beside it.

    Two processes at once both build, and the first to finish leaves its folder; a process that is killed leaves none.
    Raises UserError when the corpus holds no text.
    """
    identity = json.dumps([FORMAT, corpus.digest(), settings], sort_keys=True)
    folder = Path(index_dir) / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        store = PassageStore(part)
        store.write(corpus.passages())
        if not len(store):
            raise UserError(f"the corpus {corpus.path} holds no text")
        build(store)
        _rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _rename(part: Path, folder: Path) -> None:
    part.chmod(0o755)  # mkdtemp's are for their owner alone
    try:
        os.rename(part, folder)
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
