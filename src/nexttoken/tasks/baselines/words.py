"""The baseline of tables: logistic regression on words and character n-grams, for any number of classes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from zlib import crc32

import numpy as np

from nexttoken.tasks.baselines.regression import labelled, require_fitted
from nexttoken.types import Example

STRENGTHS = (0.1, 1.0, 10.0)  # scikit-learn's C, from which the training rows choose
MAX_ROWS_TO_CHOOSE = 1000  # training rows on which the strength is chosen
MAX_WEIGHTS = 2_000_000  # of the words and of the characters each, over all classes: bounds time and memory
MAX_CHARACTERS = 4000  # of a field that are read, from its beginning
END = " ."  # behind every text, so that no vocabulary is ever empty
_NUM_PARTS = 4  # the strength is chosen on one of so many parts of the training rows


@dataclass(frozen=True)
class _Fitted:
    """scikit-learn's vectorizer and classifier, the classes that it knows, and the probability of each other class."""

    vectorizer: Any
    model: Any  # None where only one class was seen
    seen: np.ndarray
    share_of_unseen: np.ndarray  # (K,), 0 for the classes that were seen


@dataclass(frozen=True)
class WordBaseline:
    """Logistic regression on TF-IDF of words, word pairs and two to four characters of the joined `fields`.

    Classes that the training rows lack share the probability of a new class by Good (1953): the share of rows whose
    class was seen once.
    """

    num_classes: int
    fields: tuple[str, ...]
    fitted: _Fitted | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "TF-IDF baseline"  # in tables

    def fit(self, examples: Sequence[Example]) -> "WordBaseline":
        """Return a fitted copy; examples without a label teach nothing. Raises UserError where none has one."""
        known = labelled(examples)
        texts, (places, labels, weights) = self._texts(known), _labels(known)
        vectorizer = _vectorizer(self.num_classes, len(texts))
        features, counts = vectorizer.fit_transform(texts)[places], np.bincount(labels, minlength=self.num_classes)
        model, seen = None, np.flatnonzero(counts)
        if len(seen) > 1:
            strength = _choose_strength(features, labels, [texts[place] for place in places])
            model = _regression(features, labels, strength, weights)
        unseen = counts == 0
        mass = (np.sum(counts == 1) + 1) / (len(labels) + 1)
        share = np.where(unseen, min(mass, 0.5) / max(1, unseen.sum()), 0.0)
        return replace(self, fitted=_Fitted(vectorizer, model, seen, share))

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Class probabilities, (N, K) float64, rows sum to 1. Raises UserError before `fit`."""
        fitted = require_fitted(self.fitted)
        probs = np.tile(fitted.share_of_unseen, (len(examples), 1))
        rest = 1 - fitted.share_of_unseen.sum()
        if examples and fitted.model is not None:
            of_seen = fitted.model.predict_proba(fitted.vectorizer.transform(self._texts(examples))).astype(np.float64)
            probs[:, fitted.seen] = rest * of_seen / of_seen.sum(axis=1, keepdims=True)
        else:
            probs[:, fitted.seen] = rest
        return probs

    def _texts(self, examples: Sequence[Example]) -> list[str]:
        parts = [[" ".join(e.fields[name])[:MAX_CHARACTERS] for name in self.fields] for e in examples]
        return ["\n".join(part) + END for part in parts]


def _vectorizer(num_classes: int, num_texts: int) -> Any:
    """TF-IDF of words and of characters side by side, each of length 1; what stands in one text only is left out."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    common = {
        "sublinear_tf": True,
        "min_df": min(2, num_texts),
        "max_features": max(1000, MAX_WEIGHTS // num_classes),
        "dtype": np.float32,
    }
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|\.$", **common)
    return make_union(words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common))


def _labels(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the example, class and weight, (M,) each: an example with votes has a row for each of its classes."""
    rows = [
        (place, label, share)
        for place, example in enumerate(examples)
        for label, share in (enumerate(example.votes) if example.votes else [(example.label, 1.0)])
        if share > 0
    ]
    places, labels, weights = zip(*rows, strict=True)
    return np.array(places), np.array(labels), np.array(weights)


def _regression(features: Any, labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> Any:
    """The fitted classifier; its tolerance falls with the number of classes, as the gradient of each weight does."""
    from sklearn.linear_model import LogisticRegression

    tolerance = min(1e-3, 0.05 / len(np.unique(labels)))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # most labels may be seen once
        return LogisticRegression(C=strength, max_iter=100, tol=tolerance).fit(features, labels, weights)


def _choose_strength(features: Any, labels: np.ndarray, texts: Sequence[str]) -> float:
    """The strength of the least log loss on a part of the first training rows; equal texts are in the same part."""
    some = slice(0, MAX_ROWS_TO_CHOOSE)
    parts = np.array([crc32(text.encode("utf-8", "surrogatepass")) % _NUM_PARTS for text in texts[some]])
    features, labels = features[some], labels[some]
    features = features[:, features.getnnz(axis=0) > 1]  # fewer weights to fit
    fitted_on = parts != 0
    judged = (parts == 0) & np.isin(labels, labels[fitted_on])
    if not judged.any() or len(np.unique(labels[fitted_on])) < 2:
        return STRENGTHS[1]
    losses = []
    for strength in STRENGTHS:
        model = _regression(features[fitted_on], labels[fitted_on], strength)
        probs = model.predict_proba(features[judged])
        losses.append(-np.log(probs[np.arange(len(probs)), np.searchsorted(model.classes_, labels[judged])]).mean())
    return STRENGTHS[int(np.argmin(losses))]
