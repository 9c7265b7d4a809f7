"""Temperature scaling: probabilities that say how often an answer is right, as thresholds on them need it."""

import numpy as np

LOWEST, HIGHEST = 0.1, 10.0  # temperatures; a fit that ends here says that the model's confidence is worth little
PRIOR_WIDTH = 1.0  # of ln(temperature), normal around 0: e is as far from 1 as one standard deviation


def soften(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return (N, K) probabilities proportional to probs ** (1 / temperature): over 1 flatter, under 1 sharper.

    The most probable class stays so, absent options (0) stay exactly 0, and a temperature of 1 returns `probs` itself.
    """
    if temperature == 1:
        return probs
    scaled = _log(probs) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


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
