"""A baseline for options from their length, wording, place and past, without any knowledge of their subject.

It learns patterns of a set of questions: right options that are longer, that repeat the question's words, that differ
from the others, or that were right before.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log, log1p
from typing import ClassVar
from zlib import crc32

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.tasks.baselines.regression import Scaler, labelled, require_fitted
from nexttoken.transforms.counts import text_counts
from nexttoken.types import Example

_NUM_PARTS = 5  # what was right before is counted in the other parts of the training rows
_PSEUDO_ROWS = 5.0  # an option's past is drawn towards chance as if it had been offered so often more
_SPACE = re.compile(r"\s+")


def option_features(question: str, options: Sequence[str]) -> np.ndarray:
    """Features of the texts of one question's options without their meaning, (n, F), in the order of the options."""
    pairs, asked = list(map(_pairs, options)), _pairs(question)
    rows = []
    for place, option in enumerate(options):
        counts = text_counts(option, question)
        others = [other for at, other in enumerate(pairs) if at != place]
        likeness = [len(pairs[place] & other) / max(1, len(pairs[place] | other)) for other in others] or [0.0]
        numbers = {
            "words": log1p(counts["words"]),
            "share of new words": counts["new_words"] / max(1, counts["words"]),
            "share of character pairs from the question": len(pairs[place] & asked) / max(1, len(pairs[place])),
            "stands in the question": float(bool(option) and option in question),
            "like the others": sum(sorted(likeness)) / len(likeness),  # sorted: the same sum in any order
            "like another": max(likeness),
            "share of digits": sum(map(str.isdecimal, option)) / max(1, len(option)),
        }
        rows.append(list(numbers.values()))
    return np.hstack([np.array(rows), _length_features(options)])


def _length_features(options: Sequence[str]) -> np.ndarray:
    """Length in characters, its rank, whether it is the longest or the shortest, and how far from the mean, (n, 5)."""
    lengths = np.array(list(map(len, options)), dtype=np.float64)
    longer_than = (lengths[:, None] > lengths).mean(axis=1) - (lengths[:, None] < lengths).mean(axis=1)
    sizes = np.log1p(lengths)
    from_mean = np.abs(sizes - np.log1p(np.sort(lengths)).mean())
    return np.column_stack([sizes, longer_than, lengths == lengths.max(), lengths == lengths.min(), from_mean])


def _pairs(text: str) -> set[str]:
    """Pairs of neighbouring characters; a single character is its own pair."""
    return {text[at : at + 2] for at in range(max(1, len(text) - 1))} if text else set()


@dataclass(frozen=True)
class _Question:
    """The texts of one example, case and spacing evened out; a label of -1 is unknown."""

    text: str
    options: tuple[str, ...]
    label: int

    @property
    def part(self) -> int:
        """By its text, so that a question that stands there twice does not tell its answer to itself."""
        return crc32(self.text.encode("utf-8", "surrogatepass")) % _NUM_PARTS


@dataclass(frozen=True)
class OptionPast:
    """Counts of each option text: times offered, times right, and times right by chance."""

    offered: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    by_chance: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @classmethod
    def of(cls, questions: Sequence[_Question]) -> "OptionPast":
        past = cls()
        for question in questions:
            past.offered.update(question.options)
            past.right[question.options[question.label]] += 1
            for option in question.options:
                past.by_chance[option] += 1 / len(question.options)
        return past

    def numbers(self, option: str) -> list[float]:
        """Return the log ratio of right answers to chance (0 for a new option), and the log of the times offered."""
        offered, right, by_chance = self.offered[option], self.right[option], self.by_chance.get(option, 0.0)
        pseudo = _PSEUDO_ROWS * (by_chance / offered if offered else 1.0)
        return [log((right + pseudo) / (by_chance + pseudo)), log1p(offered)]


@dataclass(frozen=True)
class _Fitted:
    """The scaler of the training part, the weights on scaled features, and what the training part says of options."""

    scaler: Scaler
    weights: np.ndarray
    past: OptionPast


@dataclass(frozen=True)
class OptionBaseline:
    """Conditional logit (McFadden 1974) on `option_features`, the option's past and its place.

    `num_classes` is the largest number of options that the task allows. `penalty` weighs half the squared
    weights: strong, since rows may be few and it costs little where they are many.
    """

    num_classes: int
    question: str = "question"
    options: str = "options"
    penalty: float = 100.0
    fitted: _Fitted | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "option baseline"  # in tables

    def fit(self, examples: Sequence[Example]) -> "OptionBaseline":
        """Return a fitted copy; examples without a label teach nothing. Raises UserError where none has one."""
        questions = self._questions(labelled(examples))
        parts = [[q for q in questions if q.part == part] for part in range(_NUM_PARTS)]
        pasts = [OptionPast.of([q for q in questions if q.part != part]) for part in range(_NUM_PARTS)]
        features = np.concatenate([self._features(*pair) for pair in zip(parts, pasts, strict=True) if pair[0]])
        scaler = Scaler.fit(features)
        in_order = [question for part in parts for question in part]
        weights = _fit_weights(scaler.transform(features), in_order, self.penalty)
        return replace(self, fitted=_Fitted(scaler, weights, OptionPast.of(questions)))

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Probabilities of the options, (N, K) float64, rows sum to 1, absent ones 0. Raises UserError before `fit`."""
        fitted = require_fitted(self.fitted)
        probs = np.zeros((len(examples), self.num_classes))
        if not (questions := self._questions(examples)):
            return probs
        features = fitted.scaler.transform(self._features(questions, fitted.past))
        sizes = _sizes(questions)
        probs[np.arange(self.num_classes) < sizes[:, None]] = _softmax(features @ fitted.weights, sizes)
        return probs

    def _questions(self, examples: Sequence[Example]) -> list[_Question]:
        if bad := [e.id for e in examples if not 1 <= len(e.fields[self.options]) <= self.num_classes]:
            raise UserError(
                f"{len(bad)} rows have no option or more than {self.num_classes}: ids {first_five(bad)}; "
                "give the baseline the task's largest number of options"
            )
        texts = [_plain(" ".join(example.fields[self.question])) for example in examples]
        options = [tuple(map(_plain, example.fields[self.options])) for example in examples]
        labels = [-1 if example.label is None else example.label for example in examples]
        return list(map(_Question, texts, options, labels))

    def _features(self, questions: Sequence[_Question], past: OptionPast) -> np.ndarray:
        """(options of all questions, F): texts, past, then one column per place."""
        texts = np.concatenate([option_features(question.text, question.options) for question in questions])
        before = np.array([past.numbers(option) for question in questions for option in question.options])
        places = np.concatenate([np.eye(self.num_classes)[: len(question.options)] for question in questions])
        return np.hstack([texts, before, places])


def _fit_weights(features: np.ndarray, questions: Sequence[_Question], penalty: float) -> np.ndarray:
    """The weights (F,) of the smallest penalised log loss: a convex problem, so the same whatever the start."""
    from scipy.optimize import minimize

    sizes = _sizes(questions)
    right = np.cumsum(sizes) - sizes + np.array([question.label for question in questions])
    of_right = features[right].sum(axis=0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        probs = _softmax(features @ weights, sizes)
        value = -np.log(np.maximum(probs[right], np.finfo(np.float64).tiny)).sum() + penalty / 2 * weights @ weights
        return value, probs @ features - of_right + penalty * weights

    return minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def _softmax(logits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Over each question's own options, (options of all questions,), of which it has `sizes` (N,)."""
    starts = np.cumsum(sizes) - sizes
    powers = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), sizes))
    return powers / np.repeat(np.add.reduceat(powers, starts), sizes)


def _sizes(questions: Sequence[_Question]) -> np.ndarray:
    return np.array([len(question.options) for question in questions])


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip().casefold()
