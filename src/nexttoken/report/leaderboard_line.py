"""The least-squares line from out-of-fold to leaderboard scores, and what it predicts for a run that was not sent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nexttoken.metrics.intervals import Interval


@dataclass(frozen=True)
class LeaderboardLine:
    """`score = intercept + slope x own`, of the points `own` (N,) and `scores` (N,).

    `slope_error` is the slope's standard error, `spread` the standard deviation of points around the line in float64;
    both are NaN of two points, which every line meets.
    """

    own: np.ndarray
    scores: np.ndarray
    intercept: float
    slope: float
    slope_error: float
    spread: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> "LeaderboardLine | None":
        """The line through pairs of an out-of-fold and a leaderboard score; None of equal out-of-fold scores."""
        if len({score for score, _ in points}) < 2:
            return None
        from scipy import stats

        own, scores = np.array(points, dtype=float).T
        fit, spread = stats.linregress(own, scores), float("nan")
        if len(points) > 2:
            spread = float(np.sqrt(np.sum((scores - fit.intercept - fit.slope * own) ** 2) / (len(points) - 2)))
        error = float(fit.stderr) if len(points) > 2 else float("nan")
        return cls(own, scores, float(fit.intercept), float(fit.slope), error, spread)

    def at(self, own: float) -> float:
        """The leaderboard score that the line predicts."""
        return self.intercept + self.slope * own

    def interval(self, own: float, level: float = 0.95) -> Interval | None:
        """Scores among which one more submission lies in this share of cases (Student's t); None of two points."""
        if len(self.own) < 3:
            return None
        from scipy import stats

        away = (own - self.own.mean()) ** 2 / np.sum((self.own - self.own.mean()) ** 2)
        width = stats.t.ppf((1 + level) / 2, len(self.own) - 2) * self.spread * np.sqrt(1 + 1 / len(self.own) + away)
        return Interval(self.at(own) - float(width), self.at(own) + float(width))
