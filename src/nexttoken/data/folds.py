"""Leak-free folds: rows with (nearly) the same text form one group, and no group is split between folds."""

import csv
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.data.files import whole_file
from nexttoken.errors import UserError, first_five
from nexttoken.progress import Progress

if TYPE_CHECKING:
    from datasketch import MinHash

_COLUMNS = ("id", "group", "fold")

SHINGLE = 5  # characters: works for languages without spaces, and one changed word touches few of them
MIN_SHINGLES = 40  # below this one changed character may be another question ("2 + 3", "2 + 4"): only equality groups
MAX_CHARACTERS = 20_000  # of a text that are compared for near-duplication; equality always reads all of it
BANDS, ROWS = 25, 5  # finds a pair of Jaccard similarity 0.8 with probability 1 - (1 - 0.8**5)**25 = 0.99995

# Sentence punctuation and white space only: + - * / # < = > tell one question from another.
_PUNCTUATION = re.compile(r"""[\s\u200b-\u200f\ufeff.,;:!?'"()\[\]{}_`…‘’“”«»—–、。「」『』・]+""")


def normalise(text: str) -> str:
    """NFKC, casefolded, with each run of white space and punctuation as one space; "???" stays itself."""
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    return _PUNCTUATION.sub(" ", folded).strip() or folded


def group_ids(texts: Sequence[str], threshold: float = 0.8) -> np.ndarray:
    """Group number per row, (N,) int64: equal after `normalise`, or Jaccard similarity of shingles >= `threshold`.

    Similarity is chained: a ~ b and b ~ c put all three together. Candidates come from MinHash LSH (Broder 1997) and
    each is verified exactly. Numbers follow the sorted texts, so they do not depend on the order of the rows.
    """
    row_texts = [normalise(text) for text in texts]
    distinct = sorted(set(row_texts))
    parents = list(range(len(distinct)))
    for first, second in _near_duplicates(distinct, threshold, parents):
        parents[_root(parents, second)] = _root(parents, first)
    roots = np.array([_root(parents, index) for index in range(len(distinct))], dtype=np.int64)
    numbers = np.unique(roots, return_inverse=True)[1]
    position = {text: index for index, text in enumerate(distinct)}
    return numbers[[position[text] for text in row_texts]].astype(np.int64) if row_texts else roots


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = index = parents[parents[index]]  # halve the path on the way
    return index


def _near_duplicates(texts: list[str], threshold: float, parents: list[int]) -> Iterator[tuple[int, int]]:
    """Yield verified pairs of positions; a pair that `parents` already joins is not verified again."""
    from datasketch import MinHash, MinHashLSH

    empty = MinHash(num_perm=BANDS * ROWS, hashfunc=int)  # shingles are hashes already
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    kept: dict[int, np.ndarray] = {}
    with Progress(len(texts), "near-duplicates") as progress:
        for position, text in enumerate(texts):
            progress.advance(1)
            shingles = _shingles(text)
            if len(shingles) < MIN_SHINGLES:
                continue
            sketch = _sketch(shingles, empty)
            for other in sorted(index.query(sketch)):
                joined = _root(parents, other) == _root(parents, position)
                if not joined and _jaccard(kept[other], shingles) >= threshold:
                    yield other, position
            index.insert(position, sketch)
            kept[position] = shingles


def _shingles(text: str) -> np.ndarray:
    """Sorted distinct uint32 hashes of every run of `SHINGLE` characters: fixed numbers in every process."""
    points = np.frombuffer(text[:MAX_CHARACTERS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(points) < SHINGLE:
        return np.empty(0, dtype=np.uint32)
    hashes = np.zeros(len(points) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + points[offset : len(hashes) + offset]  # wraps at 2**64
        hashes ^= hashes >> np.uint64(32)
    return np.unique(hashes.astype(np.uint32))


def _sketch(shingles: np.ndarray, empty: "MinHash") -> "MinHash":
    sketch = empty.copy()
    sketch.update_batch(shingles.tolist())
    return sketch


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)


@dataclass(frozen=True)
class Folds:
    """Which fold every id belongs to; `groups` and `folds` are (N,) int64 in the order of `ids`."""

    ids: tuple[str, ...]
    groups: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True)
class GroupedStratified:
    """Folds with equal label shares in which no group crosses; they depend on texts, labels and seed, never on a model.

    `dev_fraction` of a fold's training rows (0: none) chooses the checkpoint, so the held-out fold is scored only once.
    """

    num_folds: int = 5
    seed: int = 0
    dev_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise UserError(f"split.num_folds is {self.num_folds}, expected at least 2")
        if not 0 <= self.dev_fraction <= 0.5:
            raise UserError(f"split.dev_fraction is {self.dev_fraction}, expected 0 (no dev part) to 0.5")

    def folds(self, ids: Sequence[str], texts: Sequence[str], labels: np.ndarray) -> Folds:
        """Group the rows by their texts and give each its fold."""
        groups = group_ids(texts)
        return Folds(tuple(ids), groups, self.assign(labels, groups))

    def assign(self, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Fold per row, (N,) int64, whatever the order of the rows. Raises UserError where a fold would stay empty."""
        return _stratify(np.asarray(labels), np.asarray(groups), self.num_folds, self.seed)

    def dev(self, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Mask (N,) of these training rows' dev part: one of round(1 / dev_fraction) grouped, stratified parts."""
        if self.dev_fraction == 0:
            return np.zeros(len(labels), dtype=bool)
        return _stratify(np.asarray(labels), np.asarray(groups), round(1 / self.dev_fraction), self.seed) == 0


def _stratify(labels: np.ndarray, groups: np.ndarray, num_parts: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    num_groups = len(np.unique(groups))
    largest_class = np.unique(labels, return_counts=True)[1].max(initial=0)
    if min(num_groups, largest_class) < num_parts:
        raise UserError(
            f"{num_parts} parts need as many groups of different text and as many rows of a label, found {num_groups} "
            f"groups and {largest_class} rows; lower split.num_folds (or raise split.dev_fraction), or add data"
        )
    order = np.lexsort((labels, groups))  # the answer may not depend on the order of the rows
    splitter = StratifiedGroupKFold(n_splits=num_parts, shuffle=True, random_state=seed)
    parts = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a place that few questions are long enough for
        for part, (_, held_out) in enumerate(splitter.split(order, labels[order], groups[order])):
            parts[order[held_out]] = part
    return parts


def save_folds(folds: Folds, path: Path) -> None:
    """Write `id,group,fold` once; where the file exists, only compare. Raises UserError if the assignment changed."""
    if path.exists():
        return _require_same(load_folds(path), folds, path)
    with whole_file(path) as part, part.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        rows.writerows(zip(folds.ids, folds.groups.tolist(), folds.folds.tolist(), strict=True))
    return None


def load_folds(path: Path) -> Folds:
    """Read what `save_folds` wrote. Raises UserError where the file is not a table of folds."""
    try:
        with path.open(encoding="utf-8", errors="surrogatepass", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != _COLUMNS:
            raise ValueError(f"columns {header}")
        numbers = np.array([(int(group), int(fold)) for _, group, fold in rows], dtype=np.int64).reshape(-1, 2)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not a table of folds ({', '.join(_COLUMNS)}): {error}; delete it and run again to assign anew"
        ) from error
    return Folds(tuple(id for id, _, _ in rows), numbers[:, 0], numbers[:, 1])


def _require_same(saved: Folds, fresh: Folds, path: Path) -> None:
    old = dict(zip(saved.ids, zip(saved.groups, saved.folds, strict=True), strict=True))
    new = dict(zip(fresh.ids, zip(fresh.groups, fresh.folds, strict=True), strict=True))
    changed = sorted(id for id in old.keys() | new.keys() if old.get(id) != new.get(id))
    if changed:
        raise UserError(
            f"{path} gives {len(changed)} ids another fold than the data and split of now: {first_five(changed)}; "
            "restore them, or start a run of another name"
        )
