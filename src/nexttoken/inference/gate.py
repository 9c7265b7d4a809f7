"""When a first answer is too unsure to stand: the gate, and how a run remembers it."""

from dataclasses import dataclass

import numpy as np

from nexttoken.errors import UserError
from nexttoken.metrics.calibration import soften

ABOVE = 1.01  # no probability reaches this threshold: every question is asked again


@dataclass(frozen=True)
class Gate:
    """A question is asked again where its first answer's calibrated probability, or its lead, is under a threshold.

    0 never asks again, ABOVE always does. `temperature` calibrates both answers for these comparisons only.
    `keep_confident`: the first answer stays where the second is less sure of itself.
    """

    min_top1: float
    min_margin: float
    temperature: float = 1.0
    keep_confident: bool = True

    def __post_init__(self) -> None:
        for name in ("min_top1", "min_margin"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(
                    f"inference.{name}={getattr(self, name)} is not accepted: expected 0 (never ask again) "
                    f"to {ABOVE} (always)"
                )
        if not 0 < self.temperature < np.inf:
            raise UserError(
                f"inference.temperature={self.temperature} is not accepted: expected a number above 0, 1 for none"
            )

    def confidence(self, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated top-1 probability and its lead over the second, (N,) each, from (N, K) probabilities."""
        ordered = np.sort(np.minimum(soften(probs, self.temperature), 1.0), axis=1)
        return ordered[:, -1], ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)

    def unsure(self, probs: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows to be asked again."""
        top1, margin = self.confidence(probs)
        return (top1 < self.min_top1) | (margin < self.min_margin)

    def choose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows whose second answer is taken, were it asked for."""
        if not self.keep_confident:
            return np.ones(len(first), dtype=bool)
        return self.confidence(second)[0] >= self.confidence(first)[0]
