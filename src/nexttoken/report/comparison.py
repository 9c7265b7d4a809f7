"""Variants of an open task on their common rows, and which measure decides among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from nexttoken.errors import UserError
from nexttoken.report.ranking import MARK, MEASURES, PER_CHARACTER, PER_TOKEN, Measure, Ranking, Scored

LOSS_COLUMNS = ("nll", "num_tokens", "num_characters")
WRITTEN = ("chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match")  # scores of outputs against references


@dataclass(frozen=True)
class Comparison:
    """Variants ranked by `measure`; `losses` are of all answers, `outputs` (None: none) of those that were written."""

    losses: Scored
    outputs: Scored | None
    measure: Measure
    num_rows: Mapping[str, int]  # answers with a loss, each variant's own, before only common ones were kept
    left_out: tuple[str, ...] = ()  # variants without an output, which only losses compare
    unshared: tuple[str, ...] = ()  # runs of a seed that not every variant has

    @classmethod
    def of(cls, tables: Mapping[tuple[str, int], pd.DataFrame], by: str = "") -> "Comparison":
        """From each variant's and seed's table of rows; `by` names a measure, "" takes the best one there is.

        Raises UserError where the measure of `by` is not there for all, or would compare what cannot be compared.
        """
        losses = Scored.of(tables, LOSS_COLUMNS)
        written = {place: table for place, table in tables.items() if table["chrf"].notna().any()}
        columns = [*WRITTEN, *(["mark"] if written and all(t["mark"].notna().any() for t in written.values()) else [])]
        outputs = Scored.of(written, columns) if written else None
        lacking = tuple(name for name in losses.variants if outputs is None or name not in outputs.variants)
        measure = _chosen_measure(by, losses, outputs, lacking)
        num_rows = {variant: int(table["nll"].notna().sum()) for (variant, _), table in tables.items()}
        unshared = [f"{v} seed={s}" for v, s in tables if losses.seeds and s not in losses.seeds]
        return cls(losses, outputs, measure, num_rows, lacking, tuple(unshared))

    @property
    def ranking(self) -> Ranking:
        return self.rankings[self.measure.key]

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """By the key of each measure."""
        return {m.key: Ranking(_rows_for(m, self.losses, self.outputs), m) for m in self.measures}

    @property
    def measures(self) -> list[Measure]:
        """Those that compare all variants, the deciding one first."""
        written = self.outputs.columns if self.outputs and not self.left_out else {}
        others = [m for m in MEASURES.values() if m.column in written or m is PER_CHARACTER]
        others += [PER_TOKEN] * self.losses.same_tokens
        return [self.measure, *(measure for measure in others if measure != self.measure)]


def _rows_for(measure: Measure, losses: Scored, outputs: Scored | None) -> Scored:
    return losses if measure.per or outputs is None else outputs


def _chosen_measure(by: str, losses: Scored, outputs: Scored | None, lacking: Sequence[str]) -> Measure:
    has_marks = outputs is not None and "mark" in outputs.columns
    if not by:
        return MARK if has_marks and not lacking else PER_TOKEN if losses.same_tokens else PER_CHARACTER
    measure = MEASURES[by]
    if measure is PER_TOKEN and not losses.same_tokens:
        raise UserError("by=loss_per_token: the variants cut answers into other tokens; use by=loss_per_character")
    if not measure.per and lacking:
        raise UserError(f"by={by}: {', '.join(lacking)} wrote no outputs; generate some with rows=50, or predict.py")
    if measure is MARK and not has_marks:
        raise UserError("by=mark: nobody marked the outputs; name a judge: judge=output/marks/<name>")
    return measure
