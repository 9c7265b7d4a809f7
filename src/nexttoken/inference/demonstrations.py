"""Demonstrations: the most similar solved examples of the training rows, shown before each example, best last."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nexttoken.errors import UserError, refuse_below_one
from nexttoken.inference.once import Answerer, Inference, Once
from nexttoken.inference.retrieval.corpus import CorpusRetriever
from nexttoken.inference.retrieval.written_texts import search_texts, write_texts
from nexttoken.models.processes import from_first
from nexttoken.progress import Progress
from nexttoken.transforms.demonstrations import Pool, compared_text, show_similar
from nexttoken.types import Example, LabelPredictions

CHUNK = 256  # examples between two steps of the progress bar
SPARE_HITS = 4  # the example itself and its duplicates are found too, and must not be shown


@dataclass(frozen=True)
class Demonstrations(Inference):
    """Query with up to `num_demonstrations` solved examples of the fold; `retriever` searches them, not its corpus.

    Fewer are shown where fewer are found; the encoder drops the least similar where they do not fit. They are written
    as a corpus file in the retriever's `index_dir`, named by its hash, so that neither it nor its index is made twice.
    Raises UserError at once for a retriever that does not search files.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    shows_pool: ClassVar[bool] = True

    retriever: CorpusRetriever
    num_demonstrations: int = 20
    pool: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        refuse_below_one("inference.num_demonstrations", self.num_demonstrations)
        if not isinstance(self.retriever, CorpusRetriever):
            raise UserError(
                f"inference=demonstrations searches the solved tasks, which {type(self.retriever).__name__} cannot;"
                " add retriever=bm25 or retriever=dense"
            )

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> Any:
        return answer(self.views(examples, self.pool))

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The examples with demonstrations from `train`; the first process searches for all."""
        return from_first(lambda: self._shown(examples, train))

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Callable[..., Any]) -> "Demonstrations":
        return self.with_pool(train)

    def with_pool(self, examples: Sequence[Example]) -> "Demonstrations":
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
        path = write_texts(pool.texts, Path(self.retriever.index_dir))
        with Progress(len(examples), "demonstrations") as progress:
            for start in range(0, len(examples), CHUNK):
                chunk = examples[start : start + CHUNK]
                found += self._nearest(chunk, pool, path, self.num_demonstrations + SPARE_HITS)
                progress.advance(len(chunk))
        numbers = np.array([len(some) for some in found])
        print(
            f"demonstrations: {numbers.mean():.1f} a row, from {len(pool.examples)} solved tasks;"
            f" {np.sum(numbers < self.num_demonstrations)} of {len(numbers)} rows have fewer than"
            f" {self.num_demonstrations}, {np.sum(numbers == 0)} none"
        )
        return [replace(example, demonstrations=some) for example, some in zip(examples, found, strict=True)]

    def _nearest(self, examples: Sequence[Example], pool: Pool, path: Path, num_hits: int) -> list[tuple[Example, ...]]:
        """Each example's demonstrations; the search is repeated with more hits where too many must not be shown."""
        hits = search_texts(self.retriever, path, [compared_text(example) for example in examples], num_hits)
        found = [pool.choose(*pair, self.num_demonstrations) for pair in zip(examples, hits, strict=True)]
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


@dataclass(frozen=True)
class FewShot(Inference):
    """Query with demonstrations from the fold's training rows, found by BM25, the most similar last."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    num_demonstrations: int = 4
    ask: Inference = field(default_factory=Once)
    pool: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        refuse_below_one("inference.num_demonstrations", self.num_demonstrations)

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        return self.ask(show_similar(examples, self.pool, self.num_demonstrations), answer)

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return self.ask.views(show_similar(examples, train, self.num_demonstrations), train)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Inference:
        pool = tuple(example for example in train if example.label is not None)
        ask = self.ask.fitted(train, show_similar(dev, pool, self.num_demonstrations), answer)
        return replace(self, pool=pool, ask=ask)

    def state(self) -> dict[str, Any]:
        rows = [{"id": one.id, "fields": dict(one.fields), "label": one.label} for one in self.pool]
        return {"demonstrations": rows, **self.ask.state()}

    def restored(self, state: Mapping[str, Any]) -> Inference:
        pool = tuple(
            Example(row["id"], {name: tuple(turns) for name, turns in row["fields"].items()}, row["label"])
            for row in state["demonstrations"]
        )
        return replace(self, pool=pool, ask=self.ask.restored(state))
