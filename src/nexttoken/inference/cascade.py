"""The cascade: a small model answers every row, and a larger one those rows whose answers are least certain."""

from dataclasses import dataclass

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.gate import ABOVE, Gate
from nexttoken.metrics.pooling import pool


@dataclass(frozen=True)
class Cascade:
    """The rows that go on to the larger model, their order, and the answer that both models give together.

    Certainty is the small model's probability of its best class. A row goes on where it is below `threshold`: 0 sends
    none, ABOVE every one. `weights` are the small and the larger model's in the mean of their logits, 1 together. No
    row's answer depends on other rows.
    """

    threshold: float
    weights: tuple[float, float]

    def __post_init__(self) -> None:
        if not (0 <= self.threshold <= ABOVE and min(self.weights) >= 0 and abs(sum(self.weights) - 1) < 1e-9):
            what = f"threshold {self.threshold} and weights {self.weights} make no cascade"
            raise UserError(f"{what}: expected 0 to {ABOVE}, and two weights that are 1 together")

    def order(self, small: np.ndarray) -> np.ndarray:
        """The places (N,) of all rows, the least certain first, by the small model's (N, K) probabilities."""
        return np.argsort(certainty(small), kind="stable")

    def unsure(self, small: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows that go on to the larger model."""
        return Gate(self.threshold, 0.0).unsure(small)

    def combine(self, small: np.ndarray, larger: np.ndarray) -> np.ndarray:
        """The probabilities (N, K) of rows that both models have answered, (N, K) each."""
        return pool(np.array([small, larger]), np.array(self.weights), "logits")


def certainty(probs: np.ndarray) -> np.ndarray:
    """The probability (N,) of each row's best class, from (N, K), as a gate sees it."""
    return Gate(0.0, 0.0).confidence(probs)[0]


def threshold_of(certainties: np.ndarray, share: float) -> float:
    """The threshold below which this share of the certainties (N,) lies; fewer do where several are equal to it."""
    number = round(share * len(certainties))
    return 0.0 if number == 0 else ABOVE if number == len(certainties) else float(np.sort(certainties)[number])
