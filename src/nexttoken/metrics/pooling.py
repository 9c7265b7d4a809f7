"""Weighted averages of several predictors' class probabilities, in logits, probabilities or ranks, and their weights.

Tables are (M, N, K): M predictors, N rows, K classes. Weights (M,) are at least 0 and sum to 1.
"""

from collections.abc import Sequence

import numpy as np

from nexttoken.metrics.intervals import Rows
from nexttoken.types import Metric

SPACES = ("logits", "probabilities", "ranks")
FLOOR = 1e-12  # of a class that another predictor holds possible
NUM_QUANTILES, NUM_STEPS = 1001, 20


def equal_weights(number: int) -> np.ndarray:
    return np.full(number, 1 / number)


def pool(tables: np.ndarray, weights: np.ndarray, of: str) -> np.ndarray:
    """The average (N, K): of probabilities and of ranks the weighted mean, of logits their mean through a softmax.

    The tables of ranks come from `as_ranks`. Options that all predictors hold impossible (0) stay exactly 0.
    """
    if of != "logits":
        return np.einsum("m,mnk->nk", weights, tables)
    return np.exp(_pooled_logs(_logs(tables), weights))


def fit_weights(tables: np.ndarray, labels: np.ndarray, of: str) -> np.ndarray:
    """The weights with the lowest log loss on these rows: a convex problem, solved by SLSQP from equal weights."""
    from scipy.optimize import minimize

    number, rows = len(tables), np.arange(len(labels))
    values = _logs(tables) if of == "logits" else tables
    own = values[:, rows, labels]  # (M, N)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        if of == "logits":
            logs = _pooled_logs(values, weights)
            expected = np.einsum("nk,mnk->mn", np.exp(logs), np.where(np.isfinite(values), values, 0))
            return -float(logs[rows, labels].mean()), (expected - own).mean(axis=1)
        mean = np.maximum(weights @ own, FLOOR)
        return -float(np.log(mean).mean()), -(own / mean).mean(axis=1)

    found = minimize(
        loss,
        equal_weights(number),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * number,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(number)},
        options={"ftol": 1e-10, "maxiter": 200},
    ).x
    weights = np.where(found > 1e-6, found, 0.0)
    return weights / weights.sum()


def select_weights(tables: np.ndarray, rows: Rows, metric: Metric) -> np.ndarray:
    """Weights by any metric: each step adds the predictor that makes the mean best, with repetition.

    The best mean of all steps counts (Caruana et al. 2004). `rows` has the labels and the tags; its probabilities are
    not read.
    """
    counts, best, best_score = np.zeros(len(tables)), equal_weights(len(tables)), float("nan")
    for _ in range(NUM_STEPS):
        candidates = (counts + np.eye(len(tables))) / (counts.sum() + 1)
        scores = [metric.score(pool(tables, one, "ranks"), rows.labels, rows.tags) for one in candidates]
        place = int(np.argmax(np.nan_to_num(np.array(scores) * (1 if metric.higher_is_better else -1), nan=-np.inf)))
        counts[place] += 1
        if metric.is_better(scores[place], best_score):
            best, best_score = candidates[place], scores[place]
    return best


def rank_reference(probs: np.ndarray) -> np.ndarray:
    """Quantiles (1001,) of the second class's probabilities (N, 2), against which ranks of any rows are told."""
    return np.quantile(probs[:, 1], np.linspace(0, 1, NUM_QUANTILES))


def as_ranks(probs: np.ndarray, reference: Sequence[float] | np.ndarray) -> np.ndarray:
    """(N, 2): the share of reference rows below each row's probability of the second class, and the rest.

    A row's rank does not depend on the rows beside it.
    """
    values, places = np.unique(reference, return_inverse=True)
    shares = np.bincount(places, weights=np.linspace(0, 1, len(places))) / np.bincount(places)
    second = np.interp(probs[:, 1], values, shares)
    return np.column_stack([1 - second, second])


def _logs(tables: np.ndarray) -> np.ndarray:
    """Logs (M, N, K); -inf where all predictors hold an option impossible, a low number where one does."""
    is_possible = (tables > 0).any(axis=0)
    return np.where(is_possible, np.log(np.maximum(tables, FLOOR)), -np.inf)


def _pooled_logs(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logs (N, K) of the averaged probabilities."""
    is_possible = np.isfinite(logs[0])
    mean = np.where(is_possible, np.einsum("m,mnk->nk", weights, np.where(is_possible, logs, 0.0)), -np.inf)
    mean -= mean.max(axis=1, keepdims=True)
    return mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
