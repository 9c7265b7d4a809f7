"""A baseline for marks from an answer's length and the words it shares with the reference."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log1p

import numpy as np

from nexttoken.tasks.baselines.regression import Regression, labelled, require_fitted
from nexttoken.transforms.counts import text_counts
from nexttoken.types import INPUT, INSTRUCTION, Example


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
