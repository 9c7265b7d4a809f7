"""The shift of label probabilities that a correction has learnt: scales and offsets of their logarithms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nexttoken.metrics.probabilities import prior_probs, softmax
from nexttoken.types import Swap

LEAST = float(np.finfo(np.float32).tiny)  # a probability that is divided by
COMMON_WIDTH, CLASS_WIDTH = 1.0, 0.2  # of the normal priors on the common scale, and on a class's own part of it


@dataclass(frozen=True)
class Shift:
    """Each class's log-probability by `scales`, then plus `offsets`; () scales all by 1.

    Offsets are of a row's first n classes by n, its number of possible classes; a number that was not seen has none.
    Classes of probability 0 keep it.
    """

    scales: tuple[float, ...] = ()
    offsets: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def against(cls, known: Mapping[int, np.ndarray]) -> "Shift":
        """The division by the mean probabilities of rows (N, n), each class over the rows that may have it."""
        return cls((), {size: centred(-_mean_logs(probs)) for size, probs in known.items()})

    def __call__(self, probs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Shifted probabilities of (N, K), whose rows have `sizes` (N,) possible classes."""
        scaled = np.log(np.maximum(probs, LEAST)) * (self.scales or 1.0)
        logs = np.where(probs > 0, scaled, -np.inf)
        for size, offsets in self.offsets.items():
            logs[sizes == size, :size] += offsets
        return softmax(logs)

    def describe(self, names: Sequence[str]) -> str:
        """Words: of `names` the scale where it is not 1, and the offset where all rows have as many classes."""
        if not self.offsets:
            return "by each row's own content-free prompt"
        if not names or set(self.offsets) != {len(names)}:
            return f"offsets of {', '.join(map(str, sorted(self.offsets)))} classes"
        scales = [f" x {scale:.3f}" for scale in self.scales] or [""] * len(names)
        pairs = zip(names, scales, self.offsets[len(names)], strict=True)
        return ", ".join(f"{name}{scale} {offset:+.3f}" for name, scale, offset in pairs)

    def state(self) -> dict[str, Any]:
        offsets = {str(size): list(own) for size, own in self.offsets.items()}
        return {"scales": list(self.scales), "offsets": offsets}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Shift":
        return cls(tuple(state["scales"]), {int(size): tuple(own) for size, own in state["offsets"].items()})


def fit_shift(
    probs: np.ndarray, labels: np.ndarray, sizes: np.ndarray, all_labels: np.ndarray, swap: Swap | None = None
) -> Shift:
    """The shift of lowest log loss on rows (N, K) with `labels` (N,) whose mean probabilities are the class shares.

    The shares are those of `all_labels`, which may be of more rows: they say more about the offsets than the rows do. A
    class's scale is a common one of at least 0 and a part of its own, both held near 0 by normal priors; probabilities
    without a use give the class prior. With `swap` the rows count in both orders, half each, so that a pair's answers
    are treated alike.
    """
    weight = 1.0
    if swap:
        order, weight = np.array(swap.classes), 0.5
        probs, labels = np.concatenate([probs, probs[:, order]]), np.concatenate([labels, order[labels]])
        sizes, all_labels = np.tile(sizes, 2), np.concatenate([all_labels, order[all_labels]])
    known = probs[np.arange(len(labels)), labels] > 0  # a row whose label is impossible is wrong under any shift
    probs, labels, sizes = probs[known], labels[known], sizes[known]
    if not len(probs):
        return Shift()
    number, is_possible = probs.shape[1], probs > 0
    shares = prior_probs(all_labels, number, sizes) * is_possible
    shares /= shares.sum(axis=1, keepdims=True)
    means = {size: _mean_logs(own, geometric=True) for size, own in by_size(probs, sizes).items()}
    around = np.zeros(probs.shape)
    for size, mean in means.items():
        around[sizes == size, :size] = mean
    logs = (np.log(np.maximum(probs, LEAST)) - around) * is_possible
    scales, biases = _fit(logs, is_possible, np.eye(number)[labels], shares, weight)
    offsets = {size: centred(biases[:size] - scales[:size] * mean) for size, mean in means.items()}
    return Shift(tuple(scales.tolist()), offsets)


def _fit(
    logs: np.ndarray, is_possible: np.ndarray, right: np.ndarray, shares: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and biases (K,) of lowest log loss, where the `shares` (N, K) stand for the labels of the biases.

    `logs` (N, K) are log-probabilities less their means, `right` marks the labels.
    """
    from scipy.optimize import minimize

    number = logs.shape[1]
    widths = np.array([COMMON_WIDTH, *[CLASS_WIDTH] * number])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        parts, biases = values[: number + 1], values[number + 1 :]
        scaled = logs * (parts[0] + parts[1:])
        whole = np.where(is_possible, scaled + biases, -np.inf)
        top = whole.max(axis=1)
        totals = top + np.log(np.exp(whole - top[:, None]).sum(axis=1))
        fitted = np.exp(whole - totals[:, None])
        own = weight * (logs * (fitted - right)).sum(axis=0)
        slopes = np.concatenate([[own.sum()], own, weight * (fitted - shares).sum(axis=0)])
        slopes[: number + 1] += parts / widths**2
        value = weight * (totals.sum() - (scaled * right).sum() - (shares * biases).sum())
        return float(value + ((parts / widths) ** 2).sum() / 2), slopes

    start = np.concatenate([[0.5], np.zeros(number), np.log(shares.mean(axis=0).clip(1e-6))])
    bounds = [(0.0, None), *[(None, None)] * (2 * number)]
    values = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return values[0] + values[1 : number + 1], values[number + 1 :]


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
