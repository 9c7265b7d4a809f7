"""Variants of an open task on the same rows and seeds, ranked by one measure, with how sure the ranking is.

Which rows were scored and which seeds trained are a sample, as in `nexttoken.metrics.intervals`. A difference is called
noise where its interval holds 0, and also where two seeds disagree about its sign: with two or three seeds the interval
alone is too narrow to be believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.metrics.intervals import Interval, percentile_interval, resampled_means, two_sided_p


@dataclass(frozen=True)
class Measure:
    """A score of a run: the sum of `column` over rows by the sum of `per`, or by the number of rows."""

    key: str  # what the command line and judge.json call it
    title: str  # with its unit
    column: str
    higher_is_better: bool
    per: str | None = None


PER_TOKEN = Measure("loss_per_token", "nats per token", "nll", False, "num_tokens")
PER_CHARACTER = Measure("loss_per_character", "nats per character", "nll", False, "num_characters")
CHRF = Measure("chrf", "chrF (0-100)", "chrf", True)
ROUGE_L = Measure("rouge_l", "ROUGE-L (0-1)", "rouge_l", True)
MARK = Measure("mark", "mark", "mark", True)
MEASURES = {measure.key: measure for measure in (PER_TOKEN, PER_CHARACTER, CHRF, ROUGE_L, MARK)}


@dataclass(frozen=True)
class Scored:
    """Rows that every variant was scored on with every seed; `columns` are (V, S, N)."""

    variants: tuple[str, ...]
    seeds: tuple[int, ...]  # () where no seed is shared: S is 1, each variant's mean over its own seeds
    ids: tuple[str, ...]
    groups: np.ndarray  # (N,) text
    columns: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, tables: Mapping[tuple[str, int], pd.DataFrame], columns: Sequence[str]) -> "Scored":
        """From a table per variant and seed with id, group, num_characters and `columns`; NaN where not scored.

        A row counts where all tables have it, for answers of the same length. Raises UserError where there is none.
        """
        variants = tuple(dict.fromkeys(variant for variant, _ in tables))
        own = {name: {seed for variant, seed in tables if variant == name} for name in variants}
        seeds = tuple(sorted(set.intersection(*own.values())))
        used = {place: t for place, t in tables.items() if not seeds or place[1] in seeds}
        scored = {p: t.dropna(subset=list(columns)).set_index("id").sort_index() for p, t in used.items()}
        ids = _shared_ids(list(scored.values()))
        if not len(ids):
            raise UserError(
                f"{', '.join(variants)} share no held-out row with the same answer, so there is nothing to compare; "
                "train them on the same rows and folds"
            )
        rows = {place: table.loc[ids] for place, table in scored.items()}
        stacked = {name: np.array([_by_seed(rows, v, seeds, name) for v in variants]) for name in columns}
        return cls(variants, seeds, tuple(ids), next(iter(rows.values()))["group"].to_numpy(), stacked)

    @property
    def same_tokens(self) -> bool:
        """Whether every answer is as many tokens for all variants, so that losses per token can be compared."""
        tokens = self.columns["num_tokens"]
        return bool((tokens == tokens[:1, :1]).all())


def _shared_ids(tables: Sequence[pd.DataFrame]) -> pd.Index:
    ids = tables[0].index
    for table in tables[1:]:
        ids = ids.intersection(table.index)
    lengths = np.array([table.loc[ids, "num_characters"].to_numpy() for table in tables])
    return ids[(lengths == lengths[0]).all(axis=0)].sort_values()


def _by_seed(
    rows: Mapping[tuple[str, int], pd.DataFrame], variant: str, seeds: Sequence[int], column: str
) -> np.ndarray:
    """(S, N); (1, N) means over the variant's own seeds where none is shared."""
    values = [
        t[column].to_numpy(np.float64) for (v, s), t in sorted(rows.items(), key=lambda row: row[0]) if v == variant
    ]
    return np.array(values) if seeds else np.mean(values, axis=0, keepdims=True)


@dataclass(frozen=True)
class Ranking:
    """Variants by one measure. Places index `scored.variants`."""

    scored: Scored
    measure: Measure

    @cached_property
    def by_seed(self) -> np.ndarray:
        """(V, S)."""
        above, below = self._sums
        return above.sum(axis=2) / below.sum(axis=2)

    @cached_property
    def values(self) -> np.ndarray:
        """(V,), all seeds together."""
        above, below = self._sums
        return above.sum(axis=(1, 2)) / below.sum(axis=(1, 2))

    @cached_property
    def order(self) -> list[int]:
        """Places, the best first; of equal ones the first given."""
        return self._ordered(self.values)

    @property
    def best(self) -> int:
        return self.order[0]

    @cached_property
    def draws(self) -> np.ndarray:
        """Resampled values (R, V): groups of rows and seeds drawn anew, the same draw for all variants."""
        above, below = self._sums
        means = resampled_means(np.concatenate([above, below]), self.scored.groups)
        return means[:, : len(above)] / means[:, len(above) :]

    def interval(self, place: int) -> Interval:
        return percentile_interval(self.draws[:, place])

    def difference(self, place: int, against: int) -> Interval:
        """95 % interval of one variant's value less the other's."""
        return percentile_interval(self._drawn(place, against))

    def p(self, place: int, against: int) -> float:
        return two_sided_p(self._drawn(place, against))

    def is_noise(self, place: int, against: int) -> bool:
        """Whether nothing is to be seen between two variants: 0 in the interval, or seeds that disagree."""
        signs = np.sign((self.by_seed[place] - self.by_seed[against]).round(12))
        return 0 in self.difference(place, against) or len(set(signs.tolist())) > 1

    @cached_property
    def swapped(self) -> list[tuple[int, int]]:
        """Pairs, the better one first, that not every seed puts in this order."""
        sign = 1 if self.measure.higher_is_better else -1
        ahead = sign * self.by_seed
        return [(one, two) for one, two in combinations(self.order, 2) if (ahead[one] <= ahead[two]).any()]

    def order_of_seed(self, number: int) -> list[int]:
        return self._ordered(self.by_seed[:, number])

    def _ordered(self, values: np.ndarray) -> list[int]:
        return np.argsort(-values if self.measure.higher_is_better else values, kind="stable").tolist()

    def _drawn(self, place: int, against: int) -> np.ndarray:
        # Sums of equal scores may differ in the last digit, by the machine.
        return (self.draws[:, place] - self.draws[:, against]).round(12) + 0.0

    @property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        above = self.scored.columns[self.measure.column]
        return above, self.scored.columns[self.measure.per] if self.measure.per else np.ones_like(above)
