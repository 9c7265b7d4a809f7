"""Solved tasks shown before each task: the most similar that a retriever finds in the training part, best last."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from nexttoken.data.files import whole_file
from nexttoken.errors import UserError
from nexttoken.inference.once import Inference
from nexttoken.models.processes import num_ranks
from nexttoken.progress import Progress
from nexttoken.transforms.demonstrations import Pool, compared_text
from nexttoken.types import Example, Retriever

CHUNK = 256  # tasks between two steps of the progress bar
SPARE = 4  # hits beyond the number wanted: the task itself and the like are found, too, and not shown
WHOLE = 2**31  # characters of a passage: each solved task is one
NEEDED = {"corpus", "num_hits", "index_dir", "passage_characters"}  # what a retriever of files can be told

Predictions = TypeVar("Predictions")


@dataclass(frozen=True)
class Demonstrations(Inference):
    """Ask with up to `num_demonstrations` of the fold's solved tasks, which `retriever` searches instead of its corpus.

    Tasks in which it finds nothing alike are shown fewer, or none. The encoder gives up the least similar first where
    they do not fit. The solved tasks are a corpus file in the retriever's `index_dir`, named by its content, so that
    neither it nor its index is made twice. Raises UserError at once for a retriever that searches no files.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    retriever: Retriever
    num_demonstrations: int = 20
    pool: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.num_demonstrations < 1:
            raise UserError(f"inference.num_demonstrations={self.num_demonstrations}: expected at least 1")
        known: Any = fields(self.retriever) if is_dataclass(self.retriever) else ()
        if not {one.name for one in known} >= NEEDED:
            raise UserError(
                f"inference=demonstrations searches the solved tasks, which {type(self.retriever).__name__} cannot;"
                " add retriever=bm25 or retriever=dense"
            )

    def __call__(self, examples: Sequence[Example], answer: Callable[[Sequence[Example]], Predictions]) -> Predictions:
        return answer(self.views(examples, self.pool))

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The examples with their demonstrations from `train`; of several processes the first one searches, for all."""
        if num_ranks() == 1:
            return self._shown(examples, train)
        from nexttoken.models.collective import from_first

        return from_first(lambda: self._shown(examples, train))

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Callable[..., Any]) -> "Demonstrations":
        return self.with_pool(train)

    @property
    def shows_pool(self) -> bool:
        return True

    def with_pool(self, examples: Sequence[Example]) -> "Demonstrations":
        """A copy that shows the solved ones of `examples`, a fold's training rows: they are not in its `state`."""
        return replace(self, pool=tuple(_solved(examples)))

    def _shown(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        if not examples:
            return []
        pool = Pool(_solved(train))
        if not pool.examples:
            raise UserError(
                f"none of {len(train)} rows has an answer to show before a task; expected the training rows, or use"
                " inference=once"
            )
        found: list[tuple[Example, ...]] = []
        path = _written(pool.texts, Path(self.retriever.index_dir))  # type: ignore[attr-defined]
        with Progress(len(examples), "demonstrations") as progress:
            for start in range(0, len(examples), CHUNK):
                chunk = examples[start : start + CHUNK]
                found += self._nearest(chunk, pool, path, self.num_demonstrations + SPARE)
                progress.advance(len(chunk))
        numbers = np.array([len(some) for some in found])
        print(
            f"demonstrations: {numbers.mean():.1f} a row, from {len(pool.examples)} solved tasks;"
            f" {np.sum(numbers < self.num_demonstrations)} of {len(numbers)} rows have fewer than"
            f" {self.num_demonstrations}, {np.sum(numbers == 0)} none"
        )
        return [replace(example, demonstrations=some) for example, some in zip(examples, found, strict=True)]

    def _nearest(self, examples: Sequence[Example], pool: Pool, path: Path, num_hits: int) -> list[tuple[Example, ...]]:
        """For each example its demonstrations; more hits are asked for where too many of them must not be shown."""
        over: Any = self.retriever
        searching = replace(over, corpus=str(path), num_hits=num_hits, passage_characters=WHOLE)
        hits = searching.search([compared_text(example) for example in examples])
        rows = [dict.fromkeys(int(hit.source.rpartition(":")[2]) - 1 for hit in some) for some in hits]
        found = [pool.choose(*pair, self.num_demonstrations) for pair in zip(examples, rows, strict=True)]
        short = [
            place
            for place, (some, shown) in enumerate(zip(hits, found, strict=True))
            if len(some) == num_hits and len(shown) < self.num_demonstrations
        ]
        if short:
            again = self._nearest([examples[place] for place in short], pool, path, 4 * num_hits)
            for place, more in zip(short, again, strict=True):
                found[place] = more
        return found


def _solved(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.answer is not None or example.label is not None]


def _written(texts: Sequence[str], folder: Path) -> Path:
    """The corpus file of `texts`, row i in line i + 1; one that is there already is whole and the same."""
    sha = hashlib.sha256()
    for line in _lines(texts):
        sha.update(line)
    path = folder / f"solved-{sha.hexdigest()[:16]}.jsonl"
    if not path.exists():
        with whole_file(path) as part, part.open("wb") as file:
            file.writelines(_lines(texts))
    return path


def _lines(texts: Sequence[str]) -> Iterator[bytes]:
    return (json.dumps({"text": text}, ensure_ascii=False).encode(errors="replace") + b"\n" for text in texts)
