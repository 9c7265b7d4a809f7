"""A cheap judge of answer pairs from lengths and word overlap: the score a language model has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.errors import UserError
from nexttoken.transforms.counts import PairFeatures, pair_features
from nexttoken.types import Example

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_LIMIT = 4.0  # standard deviations: one answer of 200,000 characters may not decide alone


@dataclass(frozen=True)
class _Fitted:
    """Scales from the training part and the regression on scaled features, signed ones first."""

    means: np.ndarray
    scales: np.ndarray
    regression: "LogisticRegression"

    def scaled(self, features: np.ndarray) -> np.ndarray:
        return np.clip((features - self.means) / self.scales, -_LIMIT, _LIMIT)


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
    fitted: _Fitted | None = field(default=None, repr=False, compare=False)

    def fit(self, examples: Sequence[Example]) -> "PairBaseline":
        """A fitted copy; examples without a label teach nothing. Raises UserError where none has one."""
        from sklearn.linear_model import LogisticRegression

        labelled = [example for example in examples if example.label is not None]
        if not labelled:
            raise UserError(
                "the baseline got no labelled examples, expected training rows; fit it on the training part"
            )
        forward, backward = self._features(labelled)
        labels = np.array([example.label for example in labelled], dtype=np.int64)
        both = np.concatenate([forward, backward])
        regression = LogisticRegression(C=self.strength, max_iter=2000)
        fitted = _Fitted(both.mean(axis=0), both.std(axis=0) + 1e-9, regression)
        # One average row per class: a class absent from the training part keeps a small probability.
        average = np.zeros((len(self.swap), both.shape[1]))
        targets = np.concatenate([labels, np.take(self.swap, labels), np.arange(len(self.swap))])
        regression.fit(np.concatenate([fitted.scaled(both), average]), targets)
        return replace(self, fitted=fitted)

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Class probabilities, (N, K) float64, rows sum to 1. Raises UserError before `fit`."""
        if self.fitted is None:
            raise UserError("the baseline is not fitted, expected PairBaseline().fit(train_examples).predict(examples)")
        forward, backward = (
            self.fitted.regression.predict_proba(self.fitted.scaled(features)) for features in self._features(examples)
        )
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
