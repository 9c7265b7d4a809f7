"""Lists of rows worth a look: the worst, the wrong ones the model was sure of, the undecided, the flipped, any."""

import numpy as np

from nexttoken.report.page.both_orders import BothOrders

MAX_LISTED = 100
VIEWS = {  # what the page calls them
    "worst": "worst (highest loss)",
    "certain": "most certain and wrong",
    "uncertain": "most uncertain",
    "flipped": "flipped by the order",
    "random": "random",
}


def find_views(
    probs: np.ndarray, losses: np.ndarray, labels: np.ndarray, orders: BothOrders | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """The places of up to MAX_LISTED rows for each view, the first one to look at first.

    `probs` (N, K) and `losses` (N,) are NaN for rows without an answer, which no view lists. A row is uncertain where
    its two best classes are close, and flipped where the two orders decide for different classes.
    """
    known = np.flatnonzero(np.isfinite(losses))
    best = np.sort(probs[known], axis=1)[:, ::-1]
    wrong = probs[known].argmax(axis=1) != labels[known]
    views = {
        "worst": known[_lowest(-losses[known])],
        "certain": known[wrong][_lowest(-best[wrong, 0])],
        "uncertain": known[_lowest(best[:, 0] - best[:, 1])],
    }
    if orders is not None:
        flips = np.flatnonzero(orders.flips)
        views["flipped"] = flips[_lowest(-orders.gaps[flips])]
    views["random"] = np.random.default_rng(seed).permutation(known)[:MAX_LISTED]
    return views


def _lowest(values: np.ndarray) -> np.ndarray:
    return np.argsort(values, kind="stable")[:MAX_LISTED]
