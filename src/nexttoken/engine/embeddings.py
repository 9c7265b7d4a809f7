"""Text embeddings of sentence-transformers models, which are loaded once."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.models.hub import from_hub, locate
from nexttoken.settings import ModelSettings

BATCH_SIZE = 32  # texts


def embed(model: str, texts: Sequence[str]) -> np.ndarray:
    """Embeddings (N, D) float32 of norm 1. Raises UserError if the model is missing."""
    vectors = _load_embedder(model).encode(
        list(texts), batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return np.asarray(vectors, dtype=np.float32)


def fingerprint(model: str) -> str:
    """An id of the weights: a hash of a folder's file names, sizes and times, or the hub name."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    facts = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


@cache
def _load_embedder(model: str) -> Any:
    from sentence_transformers import SentenceTransformer

    source = locate(model)
    return from_hub(lambda: SentenceTransformer(source), ModelSettings(name_or_path=model))
