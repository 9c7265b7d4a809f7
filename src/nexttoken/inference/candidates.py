"""A row's candidates among many classes: chosen before the model is asked, and scattered back to all classes."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.errors import UserError, refuse_below_one
from nexttoken.inference.known_labels import Pool, Seen, Space
from nexttoken.inference.once import Answerer, Inference, Once
from nexttoken.inference.retrieval.corpus import CorpusRetriever
from nexttoken.inference.retrieval.written_texts import search_texts, write_texts
from nexttoken.models.processes import from_first
from nexttoken.transforms.demonstrations import compared_text
from nexttoken.types import OPTIONS, Example, LabelPredictions

LEAST = float(np.finfo(np.float32).tiny)  # a probability that is divided by


@dataclass(frozen=True)
class Candidates(Inference):
    """Show the model each row with its candidates alone, and give every other class the probability 0.

    The inference `ask` sees all classes.

    Candidates are the labels that the fold's training part has with the row's group (the task's `labels_by`), else all
    classes; of these the `number` whose names `retriever` finds for the row, or the run `from_run` finds most probable,
    then the most frequent ones. A row with
    options of its own has these. Training shows the right one and `sampled` others in random order, drawn anew in each
    of `num_rounds` rounds, of which an epoch takes one.
    """

    number: int | None = None
    sampled: int = 31
    num_rounds: int = 4
    seed: int = 0
    retriever: Any = None
    from_run: str | None = None
    ask: Inference = field(default_factory=Once)
    space: Space = field(default_factory=Space)
    seen: Seen = field(default_factory=Seen)
    ranker: Callable[[Sequence[Example]], list[list[int]]] | None = None  # the answers of `from_run`
    num_labels: int | None = None  # of a prompt that lists the candidates; None where each is scored by its own text

    def __post_init__(self) -> None:
        for name in ("number", "sampled", "num_rounds"):
            if (value := getattr(self, name)) is not None:
                refuse_below_one(f"candidates.{name}", value)

    def around(self, ask: Inference, task: Any, num_labels: int | None) -> "Candidates":
        """This choice of candidates around an inference. Raises UserError where nothing can choose the `number`."""
        space = Space.of(task)
        chooses = self.number is not None and space.labels_by is None and self.number < len(space.classes)
        if self.from_run and self.number is None:
            raise UserError("candidates.from_run orders the classes, and all are shown; add candidates.number=25")
        if chooses and not self.from_run and not isinstance(self.retriever, CorpusRetriever):
            raise UserError(
                f"candidates.number={self.number} of {len(space.classes)} classes are found by a search of the classes'"
                " names or by another run: add retriever=bm25, retriever=dense or candidates.from_run=output/..."
            )
        return replace(self, ask=ask, space=space, num_labels=num_labels)

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        hits: dict[str, bool] = {}
        asked = self.ask(examples, lambda rows: self._answer(rows, answer, hits))
        if len(hits) < len(examples):
            return asked
        recalled = np.array([hits[one] for one in asked.ids])
        print(f"recall: the right one is among them in {recalled.mean():.1%} of {len(recalled)} rows")
        return replace(asked, columns={**asked.columns, "recalled": recalled})

    def _answer(self, examples: Sequence[Example], answer: Answerer, hits: dict[str, bool]) -> LabelPredictions:
        """Probabilities (N, K) of all classes; `hits` receives for each labelled id if the right one is a candidate."""
        start = time.monotonic()
        pools = self.pools(examples)
        seconds = (time.monotonic() - start) / max(len(examples), 1)
        parts = [(row, part) for row, pool in enumerate(pools) for part in self._parts(pool)]
        asked = answer([self._view(examples[row], part) for row, part in parts])
        probs = np.zeros((len(examples), len(self.space.classes)))
        for (row, part), own in zip(parts, asked.probs, strict=True):
            probs[row, list(part)] = own[: len(part)] / max(own[0], LEAST)
        took = np.bincount([row for row, _ in parts], asked.columns["seconds"], len(examples)) + seconds
        if not any(OPTIONS in example.fields for example in examples):
            print(f"candidates: {np.mean(list(map(len, pools))):.1f} of {len(self.space.classes)} classes a row")
            pairs = zip(examples, pools, strict=True)
            hits |= {example.id: example.label in pool for example, pool in pairs if example.label is not None}
        ids = tuple(example.id for example in examples)
        return LabelPredictions(ids, probs / probs.sum(axis=1, keepdims=True), {"seconds": took})

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """The examples as they are asked; as training shows them where else no right one would be a candidate."""
        own, shown = self._after(train), self.ask.views(examples, train)
        first_parts = [next(own._parts(pool)) for pool in own.pools(shown)]
        found = [own._view(*pair) for pair in zip(shown, first_parts, strict=True)]
        if any(view.label is not None for view in found) or any(example.label is None for example in shown):
            return found
        return [view for pair in zip(shown, first_parts, strict=True) for view in own._drawn(*pair)]

    def training_views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        own = self._after(train)
        return [view for pair in zip(examples, own.pools(examples), strict=True) for view in own._drawn(*pair)]

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> "Candidates":
        own = self._after(train)
        ask = self.ask.fitted(train, dev, lambda rows: own._answer(rows, answer, {}))
        return replace(self._after([*train, *dev]), ask=ask)

    def _after(self, train: Sequence[Example]) -> "Candidates":
        return replace(self, seen=Seen.of(train, self.space))

    def with_pool(self, examples: Sequence[Example]) -> "Candidates":
        return replace(self, ask=self.ask.with_pool(examples))

    def state(self) -> dict[str, Any]:
        classes, seen = self.space.classes, self.seen
        saved = {
            "counts": {classes[label]: number for label, number in seen.counts.items()},
            "groups": {group: [classes[label] for label in pool] for group, pool in seen.groups.items()},
            "others": None if seen.others is None else [classes[label] for label in seen.others],
        }
        return {"candidates": saved, **self.ask.state()}

    def restored(self, state: Mapping[str, Any]) -> "Candidates":
        saved, place = state["candidates"], {name: number for number, name in enumerate(self.space.classes)}
        counts = {place[name]: number for name, number in saved["counts"].items()}
        groups = {group: tuple(place[name] for name in pool) for group, pool in saved["groups"].items()}
        others = None if saved["others"] is None else tuple(place[name] for name in saved["others"])
        return replace(self, ask=self.ask.restored(state), seen=Seen(counts, groups, others))

    def pools(self, examples: Sequence[Example]) -> list[Pool]:
        """The candidates of each example. The first process searches for all; all together ask another run."""
        pools = [self._known(example) for example in examples]
        long = [row for row, pool in enumerate(pools) if self.number and len(pool) > self.number]
        frequent = sorted(range(len(self.space.classes)), key=lambda label: -self.seen.counts.get(label, 0))
        for row, ranked in zip(long, self._ranked([examples[row] for row in long]), strict=True):
            allowed = set(pools[row])
            best_first = dict.fromkeys(label for label in chain(ranked, frequent) if label in allowed)
            pools[row] = tuple(islice(best_first, self.number))
        return pools

    def _known(self, example: Example) -> Pool:
        """The candidates before any search."""
        if OPTIONS in example.fields:
            return tuple(range(len(example.fields[OPTIONS])))
        others = tuple(range(len(self.space.classes))) if self.seen.others is None else self.seen.others
        return self.seen.groups.get(self.space.group_of(example) or "", others)

    def _ranked(self, examples: Sequence[Example]) -> list[list[int]]:
        """The classes found for each example, the best first; none without a retriever or for rows with options."""
        if examples and self.ranker:
            return self.ranker(examples)  # in every process: each asks the other run for its share of the rows
        if not examples or not isinstance(self.retriever, CorpusRetriever):
            return [[] for _ in examples]
        num_hits = len(self.space.names) if self.space.labels_by else int(self.number or 1)
        queries = [compared_text(example) for example in examples]

        def found() -> list[list[int]]:
            path = write_texts(self.space.names, Path(self.retriever.index_dir))
            return search_texts(self.retriever, path, queries, num_hits)

        return from_first(found)

    def _view(self, example: Example, pool: Pool) -> Example:
        """The example with these candidates alone as its options; no label where the right one is not among them."""
        names = example.fields.get(OPTIONS, self.space.names)
        label = pool.index(example.label) if example.label in pool else None
        fields = {**example.fields, OPTIONS: tuple(names[place] for place in pool)}
        shown = tuple(map(self._solved, example.demonstrations))
        total = sum(example.votes[place] for place in pool) if example.votes else 0.0
        votes = tuple(example.votes[place] / total for place in pool) if total else ()
        return replace(example, fields=fields, label=label, num_options=len(pool), demonstrations=shown, votes=votes)

    def _solved(self, example: Example) -> Example:
        """A demonstration whose answer is the name of its class."""
        names = example.fields.get(OPTIONS, self.space.names)
        return replace(example, label=None, answer=None if example.label is None else names[example.label])

    def _drawn(self, example: Example, pool: Pool) -> Iterator[Example]:
        """Views for training, one a round; one alone where each is the same to a model that reads no order."""
        others, most = [label for label in pool if label != example.label], self.sampled
        if self.num_labels is not None:
            most = min(most, self.num_labels - 1)
        elif len(others) <= most:
            yield self._view(example, (*others, example.label))  # type: ignore[arg-type]
            return
        for number in range(self.num_rounds):
            draw = random.Random(f"{self.seed} {example.id} {number}")
            chosen = [example.label, *draw.sample(others, min(most, len(others)))]
            draw.shuffle(chosen)
            turn = example.round * self.num_rounds + number
            yield replace(self._view(example, tuple(chosen)), round=turn)  # type: ignore[arg-type]

    def _parts(self, pool: Pool) -> Iterator[Pool]:
        """The candidates of each query: all, or as many as there are labels, the first one in every query.

        By its probability queries are joined: a softmax gives two classes the same ratio in any company.
        """
        size = self.num_labels or len(pool)
        if len(pool) <= size:
            yield pool
            return
        for start in range(1, len(pool), size - 1):
            yield (pool[0], *pool[start : start + size - 1])
