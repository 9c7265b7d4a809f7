"""The check of all test rows before the first is answered, with 8 bytes of memory for each id."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import chain, count, islice

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.progress import LINE_SECONDS
from nexttoken.tasks.shards import Shards
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.types import Example

UTF8 = ("utf-8", "surrogatepass")
MAX_NAMED = 6  # ids: one more than an error shows


@dataclass(frozen=True)
class Plan:
    """The number of rows and the hash of each shard, in the order of the test file."""

    sizes: tuple[int, ...]
    hashes: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        return sum(self.sizes)

    @classmethod
    def of(cls, shards: Shards) -> "Plan":
        """Read all rows once. Raises UserError for faulty rows, repeated ids, and ids that the sample does not have."""
        sizes, hashes, ids, shown = list[int](), list[str](), list[np.ndarray](), time.monotonic()
        for number, make in enumerate(shards):
            with without_remarks() if number else nullcontext():
                examples = make()
            sizes.append(len(examples))
            hashes.append(hash_rows(examples))
            ids.append(hash_ids(example.id for example in examples))
            if time.monotonic() - shown > LINE_SECONDS:
                shown = time.monotonic()
                print(f"checked: {sum(sizes):,} rows", file=sys.stderr, flush=True)
        if not sizes:
            raise UserError(f"{shards.path} has no rows; expected a row for each answer")
        found = np.sort(np.concatenate(ids))
        _refuse_repeated(shards, found)
        _refuse_other_ids(shards, found)
        return cls(tuple(sizes), tuple(hashes))


def hash_rows(examples: Sequence[Example]) -> str:
    """A hash of the examples as the file has them, before any transform."""
    digest = sha256()
    for example in examples:
        digest.update(repr(example).encode(*UTF8))
    return digest.hexdigest()


def hash_ids(ids: Iterable[str]) -> np.ndarray:
    """A number (N,) uint64 for each id: of ten million ids two share one by chance once in 370,000 tests."""
    return np.frombuffer(b"".join(blake2b(one.encode(*UTF8), digest_size=8).digest() for one in ids), np.uint64)


def _refuse_repeated(shards: Shards, hashes: np.ndarray) -> None:
    """Raise UserError where several rows have one id; `hashes` are sorted."""
    repeated = {*hashes[:-1][hashes[:-1] == hashes[1:]].tolist()}
    if not repeated:
        return
    places: dict[str, list[int]] = {}
    for row, row_id in zip(count(1), _ids(shards)):
        if int(hash_ids([row_id])[0]) in repeated:
            places.setdefault(row_id, []).append(row)
    named = [f"{row_id} in rows {first_five(rows)}" for row_id, rows in places.items() if len(rows) > 1]
    if named:
        raise UserError(f"{shards.path} has ids more than once: {first_five(named)}; expected each once: mend the file")


def _refuse_other_ids(shards: Shards, hashes: np.ndarray) -> None:
    """Raise UserError where the sample submission has other ids than the test, or one twice; `hashes` are sorted."""
    if shards.sample.path is None:
        return
    blocks = [*map(hash_ids, _blocks(shards.sample.ids(), shards.size))]
    wanted = np.sort(np.concatenate(blocks)) if blocks else np.zeros(0, np.uint64)
    if np.array_equal(wanted, hashes):
        return
    lacking = _named(shards.sample.ids(), np.setdiff1d(wanted, hashes))
    added = _named(_ids(shards), np.setdiff1d(hashes, wanted))
    said = [f"{verb} {first_five(ids)}" for verb, ids in (("lacks", lacking), ("adds", added)) if ids]
    what = " and ".join(said) or f"{shards.sample.path.name} has some of them twice"
    both = f"{shards.path} must have the ids of {shards.sample.path}, each once, but {what}"
    raise UserError(f"{both}; use files that belong together")


def _named(ids: Iterable[str], hashes: np.ndarray) -> list[str]:
    """The first ids with these hashes."""
    wanted, found = {*hashes.tolist()}, list[str]()
    for row_id in ids if wanted else ():
        if int(hash_ids([row_id])[0]) in wanted:
            found.append(row_id)
            if len(found) == MAX_NAMED:
                break
    return found


def _ids(shards: Shards) -> Iterator[str]:
    with without_remarks():
        yield from chain.from_iterable((example.id for example in make()) for make in shards)


def _blocks(ids: Iterator[str], size: int) -> Iterator[list[str]]:
    while block := list(islice(ids, size)):
        yield block
