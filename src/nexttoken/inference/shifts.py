"""The shift of label probabilities that a correction has learnt: a scale and offsets of their logarithms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nexttoken.metrics.probabilities import prior_probs
from nexttoken.types import Swap

LEAST = float(np.finfo(np.float32).tiny)  # a probability that is divided by
SCALE_WIDTH, OFFSET_WIDTH = 1.0, 0.3  # of the normal priors on the scale and the offsets, around 0


@dataclass(frozen=True)
class Shift:
    """`scale` of log-probabilities, then `offsets` of a row's first n classes by n, its number of possible classes.

    A number of classes that was not seen has no offsets. Classes of probability 0 keep it.
    """

    scale: float = 1.0
    offsets: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def against(cls, known: Mapping[int, np.ndarray]) -> "Shift":
        """The division by the mean probabilities of rows (N, n), each class over the rows that may have it."""
        return cls(1.0, {size: centred(-_mean_logs(probs)) for size, probs in known.items()})

    def __call__(self, probs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Shifted probabilities of (N, K), whose rows have `sizes` (N,) possible classes."""
        logs = np.where(probs > 0, self.scale * np.log(np.maximum(probs, LEAST)), -np.inf)
        for size, offsets in self.offsets.items():
            logs[sizes == size, :size] += offsets
        return _softmax(logs)

    def describe(self, names: Sequence[str]) -> str:
        """Words: the scale where it is not 1, and the offsets of `names` where all rows have as many classes."""
        words = [f"scale {self.scale:.3f}"] if self.scale != 1 else []
        if names and set(self.offsets) == {len(names)}:
            words += [f"{name} {own:+.3f}" for name, own in zip(names, self.offsets[len(names)], strict=True)]
        elif self.offsets:
            words.append(f"offsets of {', '.join(map(str, sorted(self.offsets)))} classes")
        return ", ".join(words) or "by each row's own content-free prompt"

    def state(self) -> dict[str, Any]:
        return {"scale": self.scale, "offsets": {str(size): list(own) for size, own in self.offsets.items()}}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Shift":
        return cls(state["scale"], {int(size): tuple(own) for size, own in state["offsets"].items()})


def fit_shift(
    probs: np.ndarray, labels: np.ndarray, sizes: np.ndarray, all_labels: np.ndarray, swap: Swap | None = None
) -> Shift:
    """The shift of lowest log loss on rows (N, K) with `labels` (N,), held by normal priors.

    Log-probabilities count by their distance from the mean over the rows, times a scale of at least 0. Offsets begin at
    the shares of `all_labels`, which may be of more rows; so probabilities without a use give the class prior. With
    `swap` the rows count in both orders, half each, so that a pair's answers are treated alike.
    """
    from scipy.optimize import minimize

    weight = 1.0
    if swap:
        order, weight = list(swap.classes), 0.5
        probs, labels = np.concatenate([probs, probs[:, order]]), np.concatenate([labels, np.array(order)[labels]])
        sizes, all_labels = np.tile(sizes, 2), np.concatenate([all_labels, np.array(order)[all_labels]])
    number = probs.shape[1]
    means = {size: _mean_logs(own, geometric=True) for size, own in by_size(probs, sizes).items()}
    prior = np.log(prior_probs(all_labels, number, sizes), where=probs > 0, out=np.full(probs.shape, -np.inf))
    logs = np.where(probs > 0, np.log(np.maximum(probs, LEAST)), 0.0)
    for size, mean in means.items():
        logs[sizes == size, :size] -= mean
    logs[probs <= 0] = 0.0
    rows = np.arange(len(labels))
    known = probs[rows, labels] > 0  # a row whose label is impossible is wrong under any shift
    widths = np.array([SCALE_WIDTH, *[OFFSET_WIDTH] * number])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        fitted = _softmax(values[0] * logs + prior + values[1:])
        wrong = weight * known[:, None] * (fitted - np.eye(number)[labels])
        total = -weight * np.log(np.maximum(fitted[rows, labels], LEAST))[known].sum()
        slopes = np.array([(wrong * logs).sum(), *wrong.sum(axis=0)])
        return float(total + ((values / widths) ** 2).sum() / 2), slopes + values / widths**2

    bounds = [(0.0, None), *[(None, None)] * number]
    found = minimize(loss, np.array([0.5, *[0.0] * number]), jac=True, bounds=bounds, method="L-BFGS-B").x
    shares = {size: np.log(prior_probs(all_labels, number, [size])[0, :size]) for size in means}
    offsets = {size: shares[size] - found[0] * mean + found[1 : size + 1] for size, mean in means.items()}
    return Shift(float(found[0]), {size: centred(own) for size, own in offsets.items()})


def centred(offsets: np.ndarray) -> tuple[float, ...]:
    """The offsets (n,) with a mean of 0, which changes no probability."""
    return tuple((offsets - offsets.mean()).tolist())


def by_size(probs: np.ndarray, sizes: np.ndarray) -> dict[int, np.ndarray]:
    """By each number n of possible classes: the rows (N, n) that have so many."""
    return {size: probs[sizes == size, :size] for size in np.unique(sizes).tolist()}


def _mean_logs(probs: np.ndarray, geometric: bool = False) -> np.ndarray:
    """The logarithm of each class's mean probability, (n,), or the mean of its logarithm, over rows that may have it.

    A class that no row may have gets the mean of the others.
    """
    is_possible, logs = probs > 0, np.log(np.maximum(probs, LEAST))
    counts = is_possible.sum(axis=0)
    values = (logs * is_possible).sum(axis=0) if geometric else probs.sum(axis=0)
    means = values / np.maximum(counts, 1)
    means = means if geometric else np.log(np.maximum(means, LEAST))
    return np.where(counts > 0, means, means[counts > 0].mean() if counts.any() else 0.0)


def _softmax(logs: np.ndarray) -> np.ndarray:
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
