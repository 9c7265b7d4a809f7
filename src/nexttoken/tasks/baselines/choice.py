"""The baselines of a table, by its columns: of pairs, of rows with their own solved examples, and of words."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from nexttoken.tasks.baselines.regression import PairBaseline, Regression, labelled, require_fitted
from nexttoken.tasks.baselines.words import WordBaseline
from nexttoken.tasks.solved_examples import SolvedExamples
from nexttoken.types import Baseline, Example, Swap

NUM_HASHES = 2**20  # n-grams that no training row has are told apart, too: test rows may speak of other subjects


@dataclass(frozen=True)
class OwnExamplesBaseline:
    """Logistic regression on one number: the mean likeness of `text` to the positive examples less the negative ones.

    Likeness is the cosine of TF-IDF vectors of three to five characters. Two classes; the training rows decide on the
    one that a positive example stands for.
    """

    text: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    fitted: tuple[Any, Regression] | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "own-examples baseline"  # in tables

    def fit(self, examples: Sequence[Example]) -> "OwnExamplesBaseline":
        """Return a fitted copy; examples without a label teach nothing. Raises UserError where none has one."""
        from sklearn.feature_extraction.text import TfidfTransformer

        known = labelled(examples)
        weights = TfidfTransformer(sublinear_tf=True).fit(_counts(known, self.text))
        labels = np.array([example.label for example in known], dtype=np.int64)
        return replace(self, fitted=(weights, Regression.fit(self._features(weights, known), labels, 2, 1.0)))

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Class probabilities, (N, 2) float64, rows sum to 1. Raises UserError before `fit`."""
        weights, regression = require_fitted(self.fitted)
        return regression.predict(self._features(weights, examples)) if examples else np.zeros((0, 2))

    def _features(self, weights: Any, examples: Sequence[Example]) -> np.ndarray:
        """(N, 1)."""
        own = weights.transform(_counts(examples, self.text))

        def likeness(names: Sequence[str]) -> np.ndarray:
            of_each = [own.multiply(weights.transform(_counts(examples, name))).sum(axis=1) for name in names]
            return np.mean([np.asarray(values).ravel() for values in of_each], axis=0)

        return (likeness(self.positive) - likeness(self.negative))[:, None]


def _counts(examples: Sequence[Example], name: str) -> Any:
    """Counts of the n-grams of a field, (N, NUM_HASHES), sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashes = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=NUM_HASHES, alternate_sign=False, norm=None
    )
    return hashes.transform([" ".join(example.fields[name]) for example in examples])


def choose_baselines(
    fields: Sequence[str], num_classes: int, swap: Swap | None, solved: SolvedExamples | None
) -> tuple[Baseline, ...]:
    """Return the baselines for rows of `fields`, the one that fits best first."""
    sides = [next((name for name in fields if name.endswith(side)), "") for side in (swap.sides if swap else ())]
    if swap and all(sides):
        shared = next((name for name in fields if not name.endswith(swap.sides)), sides[0])
        return (PairBaseline((sides[0], sides[1]), shared, swap.classes),)
    words = WordBaseline(num_classes, tuple(fields))
    if solved and num_classes == 2 and all(map(solved.of_class, range(num_classes))):
        return (OwnExamplesBaseline(solved.text, solved.of_class(1), solved.of_class(0)), words)
    return (words,)
