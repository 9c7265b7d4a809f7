"""The submissions of the ledger: out-of-fold scores beside leaderboard scores, their line, and two final picks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from nexttoken.data.csv_tables import csv_rows
from nexttoken.data.files import hash_file
from nexttoken.data.json_lines import json_rows
from nexttoken.errors import UserError
from nexttoken.metrics.intervals import Interval
from nexttoken.metrics.named import metric_named
from nexttoken.report.markdown import loss_cell, markdown
from nexttoken.runs.ledger import Submission

FEW_POINTS = 5  # submissions with both scores, below which a line says little
ENUMERATED = 7  # points whose orders are all counted


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


@dataclass(frozen=True)
class Scored:
    """A submission with its out-of-fold score by the task's metric; `path` is None where its bytes are gone."""

    line: Submission
    score: float
    path: Path | None


def leaderboard(lines: Sequence[Submission], folder: Path) -> str:
    """A section for each task: the table, the line from out-of-fold to leaderboard, and the two picks.

    `folder` holds the files of the ledger's `lines`.
    """
    tasks: dict[str, list[Submission]] = {}
    for line in lines:
        tasks.setdefault(Path(line.run).parent.name or "unknown run", []).append(line)
    return "\n\n".join(_section(task, of_task, folder) for task, of_task in tasks.items())


def _section(task: str, lines: Sequence[Submission], folder: Path) -> str:
    metric = next((line.metric for line in lines if line.metric), "log_loss")
    heading = [task, "run", f"out-of-fold {metric}", "public", "private"]
    rows = [
        [line.file, Path(line.run).name, *map(loss_cell, (score_of(line), line.public_lb, line.private_lb))]
        for line in lines
    ]
    known = [read_scored(line, folder) for line in lines if score_of(line) is not None]
    remarks = [*describe_line(known), *describe_picks(known, metric)]
    return "\n\n".join([markdown(heading, rows), *(["\n".join(remarks)] if remarks else [])])


def score_of(line: Submission) -> float | None:
    """The out-of-fold score by the task's metric; None where the ledger has none."""
    return line.oof_score if line.metric else line.oof_log_loss


def read_scored(line: Submission, folder: Path) -> Scored:
    """The submission of a line that has an out-of-fold score; its file lies in `folder`, if anywhere."""
    path, score = folder / line.file, score_of(line)
    assert score is not None
    return Scored(line, score, path if path.is_file() and hash_file(path) == line.sha256 else None)


def describe_line(known: Sequence[Scored]) -> list[str]:
    """The rank correlation and the least-squares line of the public score on the out-of-fold score.

    With less than two points, or equal out-of-fold scores, there is none.
    """
    from scipy import stats

    line = LeaderboardLine.through(public_points(known))
    if line is None:
        return ["out-of-fold to public: add the scores of two submissions with `leaderboard add` to see their line"]
    own, public, number = line.own, line.scores, len(line.own)
    text = (
        f"out-of-fold to public, {number} submissions: public = {line.intercept:.3f} + {line.slope:.2f} x out-of-fold"
    )
    if len({*public}) < 2:
        return [f"{text}; equal public scores have no order"]
    rank = stats.spearmanr(own, public).statistic
    if number > 2:
        text += f" (slope ± {line.slope_error:.2f}, points ± {line.spread:.4f})"
    chance = f", which chance alone gives in {share_of_orders(own, public):.0%} of orders"
    few = "; too few points to rely on either" if number < FEW_POINTS else ""
    return [f"{text}, rank correlation {rank:.2f}{chance}{few}"]


def public_points(known: Sequence[Scored]) -> list[tuple[float, float]]:
    """The out-of-fold and the public score of each submission that has both."""
    return [(one.score, one.line.public_lb) for one in known if one.line.public_lb is not None]


def share_of_orders(own: np.ndarray, public: np.ndarray) -> float:
    """The share of all orders of `public` (N,) with a rank correlation at least as far from 0.

    Counted for few points, by the t distribution for more (two-sided).
    """
    from scipy import stats

    found = stats.spearmanr(own, public)
    if len(own) > ENUMERATED:
        return float(found.pvalue)
    first, second = (stats.rankdata(values) for values in (own, public))
    reached = [np.corrcoef(first, second[list(order)])[0, 1] for order in permutations(range(len(own)))]
    return float(np.mean(np.abs(reached) >= abs(found.statistic) - 1e-9))


def describe_picks(known: Sequence[Scored], metric: str) -> list[str]:
    """The two proposed submissions with the reason in words; one, or none, where the ledger has no more."""
    ordered = sorted({one.line.file: one for one in known}.values(), key=lambda one: one.score)
    if metric_named(metric).higher_is_better:
        ordered.reverse()
    if not ordered:
        return ["final picks: no submission has an out-of-fold score yet"]
    best, *others = ordered
    first = f"first pick: {best.line.file}, the best out-of-fold {metric} ({best.score:.4f})"
    good = others[: (len(ordered) + 1) // 2]
    differences = {one.line.file: difference(best.path, one.path) for one in good if best.path and one.path}
    found = {name: value for name, value in differences.items() if value is not None}
    if not found:
        gone = "" if best.path else f": the bytes of {best.line.file} are no longer beside the ledger"
        return [first, f"second pick: none, since no other good submission can be compared with the first{gone}"]
    name = max(found, key=lambda one: found[one])
    chosen = next(one for one in good if one.line.file == name)
    why = (
        f"of the {len(found)} next best it differs most from the first ({found[name]:.4f} a row), at {chosen.score:.4f}"
    )
    if found[name] == 0:
        why += "; its answers are the same, so it secures nothing"
    return [first, f"second pick: {name}: {why}; two that err alike would share one bad day"]


def difference(one: Path, other: Path) -> float | None:
    """The distance of two submission files, 0 to 1; None where their rows or columns are not the same.

    Of probabilities it is half the sum of a row's absolute differences, averaged over rows (total variation), of
    single numbers the mean absolute difference, of texts the share of rows that differ.
    """
    try:
        (ids, first), (other_ids, second) = _cells(one), _cells(other)
    except UserError:
        return None
    if ids != other_ids or first.shape != second.shape or not len(ids):
        return None
    try:
        gaps = np.abs(first.astype(float) - second.astype(float)).sum(axis=1)
    except ValueError:
        return float((first != second).any(axis=1).mean())
    return float(gaps.mean() / (2 if first.shape[1] > 1 else 1))


def _cells(path: Path) -> tuple[list[str], np.ndarray]:
    """The first column, and the others as text (N, C)."""
    if path.suffix == ".jsonl":
        rows = [[str(cell) for cell in row.values()] for _, row in json_rows(path) if isinstance(row, dict)]
    else:
        rows = [cells for _, cells in csv_rows(path)][1:]
    if len({len(row) for row in rows}) != 1:
        return [], np.empty((0, 0))
    return [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=object)
