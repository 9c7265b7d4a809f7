"""A cheap judge of answers from their length and the words they share with the reference: what a model has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log1p
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms.counts import text_counts
from nexttoken.types import INPUT, INSTRUCTION, Example

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_LIMIT = 4.0  # standard deviations: one answer of 200,000 characters may not decide alone


def mark_features(example: Example) -> np.ndarray:
    """Numbers of one answer, (F,): its size, what it repeats, and what it shares with its question and reference."""
    answer, reference = example.fields["response"][0], example.fields["reference"][0]
    asked = "\n".join((example.fields[INSTRUCTION][0], example.fields[INPUT][0]))
    counts = text_counts(answer, asked)
    pairs, wanted = _pairs(answer), _pairs(reference)
    shared = len(pairs & wanted)
    numbers = [
        *(value if name.endswith("share") else log1p(value) for name, value in counts.items()),
        counts["new_words"] / max(1, counts["words"]),
        shared / max(1, len(wanted)),
        shared / max(1, len(pairs)),
        len(pairs & _pairs(asked)) / max(1, len(pairs)),
        log1p(len(answer)) - log1p(len(reference)) if reference else 0.0,
        sum(map(str.isascii, answer)) / max(1, len(answer)),
        float(not answer.strip()),
        float(bool(reference) and answer.strip() == reference.strip()),
    ]
    return np.array(numbers, dtype=np.float64)


@dataclass(frozen=True)
class _Fitted:
    """Scales from the training part, and the regression on scaled features."""

    means: np.ndarray
    scales: np.ndarray
    regression: "LogisticRegression"


@dataclass(frozen=True)
class MarkBaseline:
    """Logistic regression on `mark_features`; `strength` is scikit-learn's C."""

    num_classes: int
    strength: float = 1.0
    fitted: _Fitted | None = field(default=None, repr=False, compare=False)

    def fit(self, examples: Sequence[Example]) -> "MarkBaseline":
        """A fitted copy; examples without a mark teach nothing. Raises UserError where none has one."""
        from sklearn.linear_model import LogisticRegression

        labelled = [example for example in examples if example.label is not None]
        if not labelled:
            raise UserError("the baseline got no marked examples, expected training rows; fit it on the training part")
        features = np.array([mark_features(example) for example in labelled])
        labels = np.array([example.label for example in labelled], dtype=np.int64)
        regression = LogisticRegression(C=self.strength, max_iter=2000)
        fitted = _Fitted(features.mean(axis=0), features.std(axis=0) + 1e-9, regression)
        # One average row per mark: a mark that the training part does not have keeps a small probability.
        average = np.zeros((self.num_classes, features.shape[1]))
        targets = np.concatenate([labels, np.arange(self.num_classes)])
        regression.fit(np.concatenate([_scaled(features, fitted), average]), targets)
        return replace(self, fitted=fitted)

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Probabilities of the marks, (N, K) float64, rows sum to 1. Raises UserError before `fit`."""
        if self.fitted is None:
            raise UserError("the baseline is not fitted, expected MarkBaseline(K).fit(examples).predict(examples)")
        if not examples:
            return np.zeros((0, self.num_classes))
        features = np.array([mark_features(example) for example in examples])
        return self.fitted.regression.predict_proba(_scaled(features, self.fitted))


def _scaled(features: np.ndarray, fitted: _Fitted) -> np.ndarray:
    return np.clip((features - fitted.means) / fitted.scales, -_LIMIT, _LIMIT)


def _pairs(text: str) -> set[str]:
    """Pairs of neighbouring characters, which any script has."""
    folded = text.casefold()
    return {folded[at : at + 2] for at in range(len(folded) - 1)}
