"""Baselines by logistic regression on lengths and shared words: answer pairs, and marks of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log1p
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms.counts import PairFeatures, pair_features, text_counts
from nexttoken.types import INPUT, INSTRUCTION, Example

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

T = TypeVar("T")

LIMIT = 4.0  # standard deviations: one answer of 200,000 characters may not decide alone


@dataclass(frozen=True)
class Scaler:
    """Standard scores by the training rows' means and deviations, (F,) each, clipped to LIMIT either way."""

    means: np.ndarray
    scales: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Scaler":
        return cls(features.mean(axis=0), features.std(axis=0) + 1e-9)

    def transform(self, features: np.ndarray) -> np.ndarray:
        return np.clip((features - self.means) / self.scales, -LIMIT, LIMIT)


@dataclass(frozen=True)
class Regression:
    """Logistic regression on scaled features (N, F); `strength` of `fit` is scikit-learn's C."""

    scaler: Scaler
    model: "LogisticRegression"

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        strength: float,
        weights: np.ndarray | None = None,
    ) -> "Regression":
        """Add one average row per class: a class that is absent from the training part keeps a small probability.

        `weights` (N,) are those of the rows; all count 1 without them.
        """
        from sklearn.linear_model import LogisticRegression

        scaler = Scaler.fit(features)
        rows = np.concatenate([scaler.transform(features), np.zeros((num_classes, features.shape[1]))])
        targets = np.concatenate([labels, np.arange(num_classes)])
        shares = None if weights is None else np.concatenate([weights, np.ones(num_classes)])
        return cls(scaler, LogisticRegression(C=strength, max_iter=2000).fit(rows, targets, shares))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return class probabilities, (N, K)."""
        return self.model.predict_proba(self.scaler.transform(features))


def labelled(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with a label. Raises UserError where none has one."""
    if not (known := [example for example in examples if example.label is not None]):
        raise UserError("the baseline got no labelled examples, expected training rows; fit it on the training part")
    return known


def require_fitted(fitted: T | None) -> T:
    """Return the fitted state. Raises UserError where `fit` was not called."""
    if fitted is None:
        raise UserError("the baseline is not fitted; call fit(train_examples).predict(examples)")
    return fitted


@dataclass(frozen=True)
class PairBaseline:
    """Logistic regression on `pair_features`; swapping both answers swaps its probabilities exactly.

    Each training row is fitted in both orders, and a prediction is the mean over both orders. `swap[k]` is the class
    that class k becomes when the answers change places; `strength` is scikit-learn's C, small since rows are few.
    """

    fields: tuple[str, str] = ("response_a", "response_b")
    context: str = "prompt"
    swap: tuple[int, ...] = (1, 0, 2)
    strength: float = 0.03
    fitted: Regression | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "length/overlap baseline"  # in tables

    def fit(self, examples: Sequence[Example]) -> "PairBaseline":
        """Return a fitted copy; examples without a label teach nothing. Raises UserError where none has one."""
        known = labelled(examples)
        labels = np.array([example.label for example in known], dtype=np.int64)
        both = np.concatenate([labels, np.take(self.swap, labels)])
        features = np.concatenate(self._features(known))
        return replace(self, fitted=Regression.fit(features, both, len(self.swap), self.strength))

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Class probabilities, (N, K) float64, rows sum to 1. Raises UserError before `fit`."""
        fitted = require_fitted(self.fitted)
        forward, backward = (fitted.predict(features) for features in self._features(examples))
        return (forward + backward[:, list(self.swap)]) / 2

    def _features(self, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """(N, F) in the order given and in the other; fixed functions of one row, so nothing leaks between rows."""
        pairs = [self._pair(example) for example in examples]
        signed = np.array([list(pair.signed.values()) for pair in pairs])
        shared = np.array([list(pair.shared.values()) for pair in pairs])
        return np.hstack([signed, shared]), np.hstack([-signed, shared])

    def _pair(self, example: Example) -> PairFeatures:
        first, second, context = ("\n".join(example.fields[name]) for name in (*self.fields, self.context))
        return pair_features(first, second, context)


def mark_features(example: Example) -> np.ndarray:
    """Numbers of one answer, (F,): its size, what it repeats, and what it shares with its question and reference."""
    answer, reference = example.fields["response"][0], example.fields["reference"][0]
    question = "\n".join((example.fields[INSTRUCTION][0], example.fields[INPUT][0]))
    counts = text_counts(answer, question)
    pairs, wanted = _pairs(answer), _pairs(reference)
    shared = len(pairs & wanted)
    numbers = [
        *(value if name.endswith("share") else log1p(value) for name, value in counts.items()),
        counts["new_words"] / max(1, counts["words"]),
        shared / max(1, len(wanted)),
        shared / max(1, len(pairs)),
        len(pairs & _pairs(question)) / max(1, len(pairs)),
        log1p(len(answer)) - log1p(len(reference)) if reference else 0.0,
        sum(map(str.isascii, answer)) / max(1, len(answer)),
        float(not answer.strip()),
        float(bool(reference) and answer.strip() == reference.strip()),
    ]
    return np.array(numbers, dtype=np.float64)


@dataclass(frozen=True)
class MarkBaseline:
    """Logistic regression on `mark_features`; `strength` is scikit-learn's C."""

    num_classes: int
    strength: float = 1.0
    fitted: Regression | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "length/overlap baseline"  # in tables

    def fit(self, examples: Sequence[Example]) -> "MarkBaseline":
        """Return a fitted copy; examples without a mark teach nothing. Raises UserError where none has one."""
        known = labelled(examples)
        labels = np.array([example.label for example in known], dtype=np.int64)
        features = np.array(list(map(mark_features, known)))
        return replace(self, fitted=Regression.fit(features, labels, self.num_classes, self.strength))

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Probabilities of the marks, (N, K) float64, rows sum to 1. Raises UserError before `fit`."""
        fitted = require_fitted(self.fitted)
        if not examples:
            return np.zeros((0, self.num_classes))
        return fitted.predict(np.array(list(map(mark_features, examples))))


def _pairs(text: str) -> set[str]:
    """Pairs of neighbouring characters, which any script has."""
    folded = text.casefold()
    return {folded[at : at + 2] for at in range(len(folded) - 1)}
