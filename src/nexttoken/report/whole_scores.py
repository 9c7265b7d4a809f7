"""Rankings by a metric that is one number for all rows, such as an AUC: every resample is scored anew."""

from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np

from nexttoken.errors import UserError
from nexttoken.metrics.intervals import SEED, Rows, resampled_scores
from nexttoken.report.ranking import Measure, Ranking, Scored
from nexttoken.types import Metric


def columns_for(metric: Metric, rows: Rows) -> dict[str, np.ndarray]:
    """The columns (N,) of numbers from which the metric is computed: each row's score, or else what it takes.

    Raises UserError where it needs a tag that the runs were not scored by.
    """
    if metric.by and rows.tags is None:
        what = f"metric={metric.name}: these runs were not scored by it, and {metric.by} of their rows is not known"
        raise UserError(f"{what}; name their own metric, or one without a column")
    values = rows.values_of(metric)
    if values.ndim:
        return {metric.name: values}
    tags = [crc32(tag.encode(errors="replace")) for tag in rows.tags or [""] * len(rows.labels)]
    probs = {f"{metric.name} {k}": column for k, column in enumerate(rows.probs.T)}
    return probs | {f"{metric.name} tag": np.array(tags, np.float64), "right": rows.labels.astype(np.float64)}


def ranking_by(metric: Metric, scored: Scored) -> Ranking:
    """The ranking of variants by a metric whose `columns_for` are among the scored columns."""
    measure = Measure(metric.name, metric.title, metric.name, metric.higher_is_better)
    return Ranking(scored, measure) if metric.name in scored.columns else WholeRanking(scored, measure, metric)


@dataclass(frozen=True)
class WholeRanking(Ranking):
    """Variants by a metric of all rows; all seeds together is the mean of the seeds' scores."""

    metric: Metric

    @cached_property
    def _tables(self) -> list[Rows]:
        """The rows of each variant and seed, V * S in all."""
        columns, name = self.scored.columns, self.metric.name
        names = [f"{name} {k}" for k in range(sum(key.startswith(f"{name} ") for key in columns) - 1)]
        probs = np.stack([columns[key] for key in names], axis=-1)  # (V, S, N, K)
        labels, tags = columns["right"].astype(np.int64), columns[f"{name} tag"]
        places = np.ndindex(probs.shape[:2])
        return [Rows(probs[place], labels[place], tags[place].astype(str)) for place in places]  # type: ignore[arg-type]

    @cached_property
    def by_seed(self) -> np.ndarray:
        return np.array([rows.score(self.metric) for rows in self._tables]).reshape(len(self.variants), -1)

    @cached_property
    def values(self) -> np.ndarray:
        return self.by_seed.mean(axis=1)

    @cached_property
    def draws(self) -> np.ndarray:
        """Resampled values (R, V): groups of rows and seeds drawn anew; resamples without a score are left out."""
        scores = resampled_scores(self.metric, self._tables, self.scored.groups)
        by_seed = scores.reshape(len(scores), *self.by_seed.shape)
        number, rng = by_seed.shape[2], np.random.default_rng(SEED)
        seeds = rng.multinomial(number, [1 / number] * number, len(scores))  # how often each is drawn
        draws = np.einsum("rvs,rs->rv", by_seed, seeds / number)
        return draws[~np.isnan(draws).any(axis=1)]
