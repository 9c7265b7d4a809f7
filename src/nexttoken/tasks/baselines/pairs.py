"""A baseline for answer pairs from lengths and word overlap."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nexttoken.tasks.baselines.regression import Regression, labelled, require_fitted
from nexttoken.transforms.counts import PairFeatures, pair_features
from nexttoken.types import Example


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
