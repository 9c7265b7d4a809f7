"""The gate: it decides from a first answer's confidence whether to query again, and is saved as gate.json."""

from dataclasses import dataclass

import numpy as np

from nexttoken.errors import UserError
from nexttoken.metrics.calibration import soften

ABOVE = 1.01  # no probability reaches this threshold: every question is queried again


@dataclass(frozen=True)
class Gate:
    """A question is queried again where its first answer's calibrated probability, or its lead, is under a threshold.

    0 never queries again, ABOVE always does. `temperature` calibrates both answers for these comparisons only.
    With `keep_confident` the first answer stays where the second is less confident.
    """

    min_top1: float
    min_margin: float
    temperature: float = 1.0
    keep_confident: bool = True

    def __post_init__(self) -> None:
        for name in ("min_top1", "min_margin"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise UserError(
                    f"inference.{name}={value} is not accepted: expected 0 (never ask again) to {ABOVE} (always)"
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
        """Mask (N,) of the rows to query again."""
        top1, margin = self.confidence(probs)
        return (top1 < self.min_top1) | (margin < self.min_margin)

    def choose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows whose second answer is better, (N, K) probabilities each."""
        if not self.keep_confident:
            return np.ones(len(first), dtype=bool)
        return self.confidence(second)[0] >= self.confidence(first)[0]
