"""Queries with retrieved passages: for every question, or only where the model is unsure without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, ClassVar

import numpy as np

from nexttoken.inference.gate import Gate
from nexttoken.inference.once import Answerer, Inference, Once, remembering
from nexttoken.inference.retrieval.search import Search
from nexttoken.metrics.scaling import fit_temperature
from nexttoken.types import PASSAGES, Example, LabelPredictions


@dataclass(frozen=True)
class WithPassages(Inference):
    """Search for every question before the query."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "options", "passages"})

    search: Search
    ask: Inference = field(default_factory=Once)

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        found = self.search.find(examples)
        print(f"retrieval: {found.summary}")
        asked = self.ask(found.examples, answer)
        columns = {"seconds": asked.columns["seconds"] + found.seconds, "found": has_passages(found.examples)}
        return replace(asked, columns={**asked.columns, **columns})

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return self.ask.views(self.search.find(examples).examples, train)


@dataclass(frozen=True)
class ConfidenceGated(Inference):
    """Query without passages; where the answer is weak or the second option close, search and query once more.

    Confidence is calibrated on the fold's dev rows. The first answer stays where nothing is found or the search fails,
    and with `keep_confident` also where the passages make the model less confident.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "options", "passages"})
    is_outermost: ClassVar[bool] = True
    fits_dev: ClassVar[bool] = True

    search: Search
    min_top1: float = 0.6
    min_margin: float = 0.2
    keep_confident: bool = True
    temperature: float = 1.0
    ask: Inference = field(default_factory=Once)

    @property
    def gate(self) -> Gate:
        return Gate(self.min_top1, self.min_margin, self.temperature, self.keep_confident)

    def __post_init__(self) -> None:
        _ = self.gate  # refuses wrong thresholds before anything is loaded

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        with remembering(answer, self.gate.unsure):
            first = self.ask(examples, answer)
            searched = self.gate.unsure(first.probs)
            found = self.search.find(list(compress(examples, searched)))
            hits = np.zeros(len(examples), dtype=bool)
            hits[searched] = has_passages(found.examples)
            probs, seconds = first.probs.copy(), np.array(first.columns["seconds"], dtype=np.float64)
            seconds[searched] += found.seconds
            taken = np.zeros(len(examples), dtype=bool)
            if hits.any():
                second = self.ask([example for example in found.examples if example.fields.get(PASSAGES)], answer)
                seconds[hits] += second.columns["seconds"]
                taken[hits] = self.gate.choose(first.probs[hits], second.probs)
                probs[taken] = second.probs[taken[hits]]
        print(
            f"gate: unsure of {searched.mean():.1%} of {len(examples)} questions; {found.summary}; the second answer"
            f" was taken for {taken.sum()}"
        )
        columns = {"seconds": seconds, "searched": searched, "found": hits, "second_taken": taken}
        return LabelPredictions(first.ids, probs, columns)

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """Each question without and, where something is found, with passages."""
        again = [example for example in self.search.find(examples).examples if example.fields.get(PASSAGES)]
        return self.ask.views([*examples, *again], train)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Inference:
        fitted: Any = super().fitted(train, dev, answer)
        if not dev:
            return fitted
        labels = np.array([example.label for example in dev])
        return replace(fitted, temperature=fit_temperature(fitted.ask(dev, answer).probs, labels))

    def state(self) -> dict[str, Any]:
        return {"temperature": self.temperature, **super().state()}

    def restored(self, state: Mapping[str, Any]) -> Inference:
        """Thresholds are in `state` where they were chosen out of fold (gate.json)."""
        saved = {key: state[key] for key in ("temperature", "min_top1", "min_margin") if key in state}
        return replace(super().restored(state), **saved)  # type: ignore[type-var]


def has_passages(examples: Sequence[Example]) -> np.ndarray:
    """Mask (N,) of the examples with passages."""
    return np.array([bool(example.fields.get(PASSAGES)) for example in examples], dtype=bool)
