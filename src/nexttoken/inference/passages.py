"""Asking with passages: every question, or only those of which the model is unsure without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from nexttoken.inference.gate import Gate
from nexttoken.inference.once import Answerer, Inference, Once, remembering
from nexttoken.inference.retrieval.search import Search
from nexttoken.metrics.calibration import fit_temperature
from nexttoken.types import PASSAGES, Example, LabelPredictions


@dataclass(frozen=True)
class WithPassages(Inference):
    """Search for every question before it is asked."""

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

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Inference:
        return replace(self, ask=self.ask.fitted(train, dev, answer))

    def state(self) -> dict[str, Any]:
        return self.ask.state()

    def restored(self, state: Mapping[str, Any]) -> Inference:
        return replace(self, ask=self.ask.restored(state))


@dataclass(frozen=True)
class ConfidenceGated(Inference):
    """Ask without passages; where the answer is weak or the second option close, search and ask once more.

    Confidence is calibrated on the fold's dev rows. A question without a hit, or behind a dead network, keeps its first
    answer; with `keep_confident` so does one whose best option loses probability by the passages.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "options", "passages"})
    is_outermost: ClassVar[bool] = True

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
        _ = self.gate  # refuses thresholds that are none, before anything is loaded

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        with remembering(answer, self.gate.unsure):
            return self._ask_twice(examples, answer)

    def _ask_twice(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        first = self.ask(examples, answer)
        unsure = np.flatnonzero(self.gate.unsure(first.probs))
        found = self.search.find([examples[row] for row in unsure.tolist()])
        hit = has_passages(found.examples)
        again = unsure[hit]
        probs, seconds = first.probs.copy(), np.array(first.columns["seconds"], dtype=np.float64)
        seconds[unsure] += found.seconds
        taken = np.zeros(len(examples), dtype=bool)
        if len(again):
            second = self.ask([one for one, is_hit in zip(found.examples, hit, strict=True) if is_hit], answer)
            seconds[again] += second.columns["seconds"]
            chosen = self.gate.choose(first.probs[again], second.probs)
            taken[again[chosen]] = True
            probs[again[chosen]] = second.probs[chosen]
        searched = _mask(unsure, len(examples))
        print(
            f"gate: unsure of {searched.mean():.1%} of {len(examples)} questions; {found.summary}; the second answer"
            f" was taken for {taken.sum()}"
        )
        marks = {"searched": searched, "found": _mask(again, len(examples)), "second_taken": taken}
        return LabelPredictions(first.ids, probs, {"seconds": seconds, **marks})

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        """Each question without and, where something is found, with passages: both have to be right."""
        found = self.search.find(examples).examples
        again = [one for one, hit in zip(found, has_passages(found), strict=True) if hit]
        return self.ask.views([*examples, *again], train)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Inference:
        ask = self.ask.fitted(train, dev, answer)
        if not dev:
            return replace(self, ask=ask)
        labels = np.array([example.label for example in dev])
        return replace(self, ask=ask, temperature=fit_temperature(ask(dev, answer).probs, labels))

    def state(self) -> dict[str, Any]:
        return {"temperature": self.temperature, **self.ask.state()}

    def restored(self, state: Mapping[str, Any]) -> Inference:
        """Thresholds are in `state` where they were chosen out of fold (gate.json)."""
        own = {key: state[key] for key in ("temperature", "min_top1", "min_margin") if key in state}
        return replace(self, ask=self.ask.restored(state), **own)


def has_passages(examples: Sequence[Example]) -> np.ndarray:
    """Mask (N,) of the examples for which something was found."""
    return np.array([bool(example.fields.get(PASSAGES)) for example in examples], dtype=bool)


def _mask(rows: np.ndarray, number: int) -> np.ndarray:
    mask = np.zeros(number, dtype=bool)
    mask[rows] = True
    return mask
