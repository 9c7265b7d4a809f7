"""Temperature, vector and structured matrix scaling: probabilities changed to say how often they are right.

Each method refines the one before: a temperature for all classes (Guo et al. 2017), then a factor and an offset for
each class (vector scaling), then a weight between every two classes (structured matrix scaling, Berta et al. 2025,
arXiv 2511.03685). Normal priors hold near zero what a method adds, so that few rows change little. The package
probmetrics fits the same kind with torch, which this room does without, and does not know pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nexttoken.metrics.probabilities import log_loss, softmax

LOWEST, HIGHEST = 0.1, 10.0  # temperatures; a fit that ends here says that the model's confidence is worth little
PRIOR_WIDTH = 1.0  # of ln(temperature), normal around 0: e is as far from 1 as one standard deviation
METHODS = ("none", "temperature", "vector", "matrix")
MAX_MATRIX_CLASSES = 30  # a matrix of more classes takes minutes to fit, and has few rows for each weight
OFFSET_WIDTH, FACTOR_WIDTH = 1.0, 0.5  # standard deviations of the priors
MIN_LOG = -30.0  # of a possible class, so that no single row decides alone


def soften(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return (N, K) probabilities proportional to probs ** (1 / temperature): over 1 flatter, under 1 sharper.

    The most probable class stays so, absent options (0) stay exactly 0, and a temperature of 1 returns `probs` itself.
    """
    if temperature == 1:
        return probs
    return softmax(_log(probs) / temperature)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which `soften(probs, temperature)` has the lowest log loss (Guo et al. 2017, section 4.2).

    `probs` is (N, K) with 0 for absent options, `labels` is (N,). The log losses' sum gets the prior's
    ln(temperature)**2 / (2 PRIOR_WIDTH**2): without rows the answer is 1, rows that are all right (whose loss falls
    without end as the temperature does) move it by no more than their number justifies, and thousands of rows leave
    the prior no say. A row whose label has probability 0 is infinitely wrong at every temperature: it is left out.
    """
    from scipy.optimize import minimize_scalar

    probs, labels = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    possible = probs[np.arange(len(labels)), labels] > 0
    logs, labels = _log(probs[possible]), labels[possible]
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logs * np.exp(-log_temperature)
        top = scaled.max(axis=1, initial=-np.inf)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((total - scaled[rows, labels]).sum() + log_temperature**2 / (2 * PRIOR_WIDTH**2))

    # The sum of a quasi-convex loss and a convex prior may have two valleys: look everywhere, then closely.
    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), 93)
    best = int(np.argmin([loss(point) for point in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x))


def _log(probs: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(probs)


@dataclass(frozen=True)
class Scaling:
    """Probabilities proportional to exp(W x + b), with x their logs less each row's mean over its possible classes.

    `weights` W is (K, K), `offsets` b is (K,). Absent options (0) stay exactly 0.
    """

    method: str
    weights: np.ndarray
    offsets: np.ndarray

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        """The scaled probabilities (N, K) of `probs` (N, K)."""
        probs = np.asarray(probs, dtype=np.float64)
        if self.method == "none":
            return probs
        return softmax(np.where(probs > 0, centred_logs(probs) @ self.weights.T + self.offsets, -np.inf))

    @property
    def values(self) -> dict[str, Any]:
        """The scaling for a JSON file."""
        return {"method": self.method, "weights": self.weights.tolist(), "offsets": self.offsets.tolist()}

    @classmethod
    def of(cls, values: Mapping[str, Any], num_classes: int) -> "Scaling":
        """The scaling of `values`. Raises ValueError, TypeError or KeyError where they are none of so many classes."""
        weights, offsets = (np.array(values[name], dtype=np.float64) for name in ("weights", "offsets"))
        shapes = weights.shape, offsets.shape
        if shapes != ((num_classes, num_classes), (num_classes,)) or values["method"] not in METHODS:
            raise ValueError(f"shapes {shapes} of {num_classes} classes")
        if not np.isfinite([*weights.ravel(), *offsets]).all():
            raise ValueError("not all weights are finite numbers")
        return cls(values["method"], weights, offsets)


def fit_scaling(method: str, probs: np.ndarray, labels: np.ndarray, swap: Sequence[int] | None = None) -> Scaling:
    """The scaling of this method with the lowest log loss on the rows, plus its priors.

    `probs` is (N, K), `labels` (N,). With a `swap`, the partner of each class when a pair's answers change places, both
    answers are treated alike: every row counts half as it is and half in the other order. A row whose label has
    probability 0 is left out.
    """
    number = probs.shape[1]
    if method == "none":
        return Scaling(method, np.eye(number), np.zeros(number))
    sound = probs[np.arange(len(labels)), labels] > 0
    probs, labels = probs[sound], labels[sound]
    temperature = fit_temperature(probs, labels)
    if method == "temperature":
        return Scaling(method, np.eye(number) / temperature, np.zeros(number))
    share = 1.0
    if swap is not None:
        partners = np.asarray(swap)
        probs, labels = np.concatenate([probs, probs[:, partners]]), np.concatenate([labels, partners[labels]])
        share = 0.5
    factors, offsets = _fit(centred_logs(probs) / temperature, probs > 0, labels, share, method == "matrix")
    return Scaling(method, (np.eye(number) + factors) / temperature, offsets)


def choose_scaling(
    probs: np.ndarray, labels: np.ndarray, parts: np.ndarray, swap: Sequence[int] | None = None
) -> Scaling:
    """The method with the lowest log loss on parts (N,) that it was not fitted on, fitted on all rows; perhaps none."""
    scores = {
        method: log_loss(cross_scaled(method, probs, labels, parts, swap), labels)
        for method in methods_for(probs.shape[1])
    }
    return fit_scaling(min(scores, key=scores.__getitem__), probs, labels, swap)


def cross_scaled(
    method: str, probs: np.ndarray, labels: np.ndarray, parts: np.ndarray, swap: Sequence[int] | None = None
) -> np.ndarray:
    """Each part's probabilities (N, K) by a scaling that was fitted on the other parts."""
    scaled = np.array(probs, dtype=np.float64)
    for part in np.unique(parts):
        own = parts == part
        scaled[own] = fit_scaling(method, probs[~own], labels[~own], swap)(probs[own])
    return scaled


def methods_for(num_classes: int) -> tuple[str, ...]:
    """The methods that are tried with so many classes."""
    return METHODS if num_classes <= MAX_MATRIX_CLASSES else METHODS[:-1]


def centred_logs(probs: np.ndarray) -> np.ndarray:
    """(N, K) logs of probabilities less the row's mean over its possible classes; 0 for the others, which have 0."""
    is_possible = probs > 0
    logs = np.where(is_possible, np.log(np.where(is_possible, probs, 1.0)), 0.0)
    logs = np.where(is_possible, np.maximum(logs, MIN_LOG), 0.0)
    return np.where(is_possible, logs - logs.sum(axis=1, keepdims=True) / is_possible.sum(axis=1, keepdims=True), 0.0)


def _fit(
    logs: np.ndarray, is_possible: np.ndarray, labels: np.ndarray, share: float, is_matrix: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Changes of the factors, (K, K), and offsets, (K,): the maximum a posteriori, a convex problem."""
    from scipy.optimize import minimize

    number, rows = logs.shape[1], np.arange(len(labels))
    widths = np.full((number, number), FACTOR_WIDTH / max(1, number - 1) ** 0.5 if is_matrix else 0.0)
    np.fill_diagonal(widths, FACTOR_WIDTH)
    free = np.flatnonzero(widths)
    precisions = np.concatenate([widths.ravel()[free] ** -2, np.full(number, OFFSET_WIDTH**-2)])

    def unpacked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factors = np.zeros(number * number)
        factors[free] = values[: len(free)]
        return factors.reshape(number, number), values[len(free) :]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        factors, offsets = unpacked(values)
        errors = softmax(np.where(is_possible, logs + logs @ factors.T + offsets, -np.inf))
        total = -share * np.log(np.maximum(errors[rows, labels], np.finfo(np.float64).tiny)).sum()
        errors[rows, labels] -= 1
        gradient = share * np.concatenate([(errors.T @ logs).ravel()[free], errors.sum(axis=0)])
        return float(total + (precisions * values**2).sum() / 2), gradient + precisions * values

    start = np.zeros(len(precisions))
    return unpacked(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x)
