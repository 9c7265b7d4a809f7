"""Logistic regression on bounded standard scores, and the two checks that every baseline of labels shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nexttoken.errors import UserError
from nexttoken.types import Example

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
    def fit(cls, features: np.ndarray, labels: np.ndarray, num_classes: int, strength: float) -> "Regression":
        """Add one average row per class: a class that is absent from the training part keeps a small probability."""
        from sklearn.linear_model import LogisticRegression

        scaler = Scaler.fit(features)
        rows = np.concatenate([scaler.transform(features), np.zeros((num_classes, features.shape[1]))])
        targets = np.concatenate([labels, np.arange(num_classes)])
        return cls(scaler, LogisticRegression(C=strength, max_iter=2000).fit(rows, targets))

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
