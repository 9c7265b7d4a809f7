"""Variants scored on the same rows with the same seeds: their values by a measure, and how sure a difference is.

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

    key: str  # its name on the command line and in judge.json
    title: str  # with its unit
    column: str
    higher_is_better: bool
    per: str | None = None


PER_TOKEN = Measure("loss_per_token", "nats per token", "nll", False, "num_tokens")
PER_CHARACTER = Measure("loss_per_character", "nats per character", "nll", False, "num_characters")
MARK = Measure("mark", "mark", "mark", True)
TEXTS = (Measure("chrf", "chrF (0-100)", "chrf", True), Measure("rouge_l", "ROUGE-L (0-1)", "rouge_l", True))
MEASURES = {measure.key: measure for measure in (PER_TOKEN, PER_CHARACTER, *TEXTS, MARK)}
LOSS_COLUMNS = ("nll", "num_tokens", "num_characters")


@dataclass(frozen=True)
class Scored:
    """Rows that every variant was scored on with every seed; `columns` are (V, S, N)."""

    variants: tuple[str, ...]
    seeds: tuple[int, ...]  # () where no seed is shared: S is 1, each variant's mean over its own seeds
    groups: np.ndarray  # (N,)
    columns: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, tables: Mapping[tuple[str, int], pd.DataFrame], columns: Sequence[str], same: str = "num_characters"
    ) -> "Scored":
        """From a table per variant and seed with id, group, `same` and `columns`; NaN where not scored.

        A row counts where all tables have it with an equal `same`. Raises UserError where there is none.
        """
        variants = tuple(dict.fromkeys(variant for variant, _ in tables))
        seeds_of = {name: sorted(seed for variant, seed in tables if variant == name) for name in variants}
        seeds = tuple(sorted(set.intersection(*map(set, seeds_of.values()))))
        rows = [
            [tables[name, seed].dropna(subset=list(columns)).set_index("id") for seed in seeds or seeds_of[name]]
            for name in variants
        ]
        shared = pd.concat([table[same] for of_one in rows for table in of_one], axis=1, join="inner").sort_index()
        ids = shared.index[shared.eq(shared.iloc[:, 0], axis=0).all(axis=1)]
        if not len(ids):
            what = f"{', '.join(variants)} share no held-out row with the same answer, so there is nothing to compare"
            raise UserError(f"{what}; train them on the same rows and folds")
        by_seed = [np.array([t.loc[ids, list(columns)].to_numpy(np.float64) for t in of_one]) for of_one in rows]
        values = np.array(by_seed if seeds else [one.mean(axis=0, keepdims=True) for one in by_seed])  # (V, S, N, C)
        by_column = dict(zip(columns, np.moveaxis(values, -1, 0).copy(), strict=True))
        return cls(variants, seeds, rows[0][0].loc[ids, "group"].to_numpy(), by_column)

    @property
    def num_rows(self) -> int:
        return len(self.groups)

    @property
    def same_tokens(self) -> bool:
        """True where every answer is as many tokens for all variants, so that losses per token can be compared."""
        return bool(np.ptp(self.columns["num_tokens"], axis=(0, 1)).max() == 0)


@dataclass(frozen=True)
class Ranking:
    """Variants by one measure. Places index `variants`."""

    scored: Scored
    measure: Measure

    @property
    def variants(self) -> tuple[str, ...]:
        return self.scored.variants

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Each row's share above and below the fraction line, (V, S, N) each."""
        above = self.scored.columns[self.measure.column]
        return above, self.scored.columns[self.measure.per] if self.measure.per else np.ones_like(above)

    @cached_property
    def by_seed(self) -> np.ndarray:
        """(V, S)."""
        above, below = self._parts
        return above.sum(axis=2) / below.sum(axis=2)

    @cached_property
    def values(self) -> np.ndarray:
        """(V,), all seeds together."""
        above, below = self._parts
        return above.sum(axis=(1, 2)) / below.sum(axis=(1, 2))

    @cached_property
    def order(self) -> list[int]:
        """Places, the best first; of equal ones the first given."""
        return self.order_of(self.values)

    def order_of(self, values: np.ndarray) -> list[int]:
        return np.argsort(-values if self.measure.higher_is_better else values, kind="stable").tolist()

    @property
    def best(self) -> int:
        return self.order[0]

    @cached_property
    def draws(self) -> np.ndarray:
        """Resampled values (R, V): groups of rows and seeds drawn anew, the same draw for all variants."""
        if not self.measure.per:
            return resampled_means(self._parts[0], self.scored.groups)
        above, below = np.split(resampled_means(np.concatenate(self._parts), self.scored.groups), 2, axis=1)
        return above / below

    def interval(self, place: int) -> Interval:
        return percentile_interval(self.draws[:, place])

    def difference(self, place: int, against: int) -> Interval:
        """95 % interval of one variant's value less the other's."""
        return percentile_interval(self._drawn(place, against))

    def p(self, place: int, against: int) -> float:
        return two_sided_p(self._drawn(place, against))

    def _drawn(self, place: int, against: int) -> np.ndarray:
        # Sums of equal scores may differ in the last digit, by the machine; -0.0 would be shown with its sign.
        return (self.draws[:, place] - self.draws[:, against]).round(12) + 0.0

    def is_noise(self, place: int, against: int) -> bool:
        """True where two variants cannot be told apart: 0 is in the interval, or seeds disagree."""
        signs = np.sign((self.by_seed[place] - self.by_seed[against]).round(12))
        return 0 in self.difference(place, against) or len(set(signs.tolist())) > 1

    def verdict(self, place: int) -> str:
        """`chosen`, `noise` or `worse`."""
        return "chosen" if place == self.best else "noise" if self.is_noise(place, self.best) else "worse"

    @cached_property
    def swapped(self) -> list[tuple[int, int]]:
        """Pairs, the better one first, that not every seed puts in this order."""
        ahead = self.by_seed if self.measure.higher_is_better else -self.by_seed
        return [(one, two) for one, two in combinations(self.order, 2) if (ahead[one] <= ahead[two]).any()]


@dataclass(frozen=True)
class Comparison:
    """Variants of an open task ranked by `measure`; `losses` are of all answers, `outputs` of the generated ones."""

    losses: Scored
    outputs: Scored | None
    measure: Measure
    num_rows: Mapping[str, int]  # answers with a loss of each variant, common or not
    left_out: tuple[str, ...] = ()  # variants without an output, which only losses compare
    unshared: tuple[str, ...] = ()  # runs of a seed that not every variant has

    @classmethod
    def of(cls, tables: Mapping[tuple[str, int], pd.DataFrame], by: str = "") -> "Comparison":
        """From each variant's and seed's table of rows; `by` names a measure, "" takes the best one there is.

        Raises UserError where not all variants have the measure `by`, or it cannot be compared between them.
        """
        losses = Scored.of(tables, LOSS_COLUMNS)
        written = {place: table for place, table in tables.items() if table["chrf"].notna().any()}
        has_marks = bool(written) and all(table["mark"].notna().any() for table in written.values())
        outputs = Scored.of(written, ["chrf", "rouge_l", *["mark"] * has_marks]) if written else None
        lacking = tuple(name for name in losses.variants if outputs is None or name not in outputs.variants)
        measure = MEASURES[by] if by else MARK if has_marks and not lacking else PER_TOKEN
        if measure is PER_TOKEN and not losses.same_tokens:
            if by:
                raise UserError(f"by={by}: the variants cut answers into other tokens; use by=loss_per_character")
            measure = PER_CHARACTER
        if not measure.per and lacking:
            names = ", ".join(lacking)
            raise UserError(f"by={by}: {names} wrote no outputs; generate some with rows=50, or predict.py")
        if measure is MARK and not has_marks:
            raise UserError("by=mark: nobody marked the outputs; name a judge: judge=output/marks/<name>")
        num_rows = {variant: int(table["nll"].notna().sum()) for (variant, _), table in tables.items()}
        unshared = tuple(f"{v} seed={s}" for v, s in tables if losses.seeds and s not in losses.seeds)
        return cls(losses, outputs, measure, num_rows, lacking, unshared)

    @property
    def ranking(self) -> Ranking:
        return self.rankings[self.measure.key]

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """By the key of each measure that compares all variants, the deciding one first."""
        written = self.outputs.columns if self.outputs and not self.left_out else {}
        others = (m for m in MEASURES.values() if m.column in written or m is PER_CHARACTER)
        measures = dict.fromkeys([self.measure, *others, *[PER_TOKEN] * self.losses.same_tokens])
        return {m.key: Ranking(self.losses if m.per or not self.outputs else self.outputs, m) for m in measures}
