"""Variants of an open task side by side: a table with the chosen one, and plain words where a difference is noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.report.intervals import NUM_RESAMPLES, Interval
from nexttoken.report.markdown import NOTHING, markdown
from nexttoken.report.ranking import MARK, MEASURES, PER_CHARACTER, PER_TOKEN, Measure, Ranking, Scored

LOSS_COLUMNS = ("nll", "num_tokens", "num_characters")
WRITTEN = ("chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match")  # scores of outputs against references
MOST_NAMED = 5  # pairs in a sentence


@dataclass(frozen=True)
class Comparison:
    """Variants ranked by `measure`; `losses` are of all answers, `outputs` (None: none) of those that were written."""

    losses: Scored
    outputs: Scored | None
    measure: Measure
    num_rows: Mapping[str, int]  # answers with a loss, each variant's own, before only common ones were kept
    left_out: tuple[str, ...] = ()  # variants without an output, which only losses compare

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
        return cls(
            losses,
            outputs,
            measure,
            {variant: int(t["nll"].notna().sum()) for (variant, _), t in tables.items()},
            lacking,
        )

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


def variants_page(comparison: Comparison) -> str:
    """Markdown: the table, the chosen variant, what is noise, whether seeds agree, what other measures say, notes."""
    return "\n\n".join(
        [
            variants_table(comparison),
            "\n".join(f"- {sentence}" for sentence in [*sentences(comparison.ranking), *other_choices(comparison)]),
            notes(comparison),
        ]
    )


def variants_table(comparison: Comparison) -> str:
    ranking = comparison.ranking
    best = ranking.scored.variants[ranking.best]
    header = ["variant", "rows", PER_TOKEN.title, "perplexity", PER_CHARACTER.title, "outputs", "chrF", "ROUGE-L"]
    header += ["mark", f"{ranking.measure.title} − {best}", "95 % interval", "verdict"]
    cells = [_cells(comparison, variant) for variant in ranking.scored.variants]
    return markdown(header, [[*cells[place], *_against_best(ranking, place)] for place in ranking.order])


def _cells(comparison: Comparison, variant: str) -> list[str]:
    losses, outputs = comparison.losses, comparison.outputs
    place = losses.variants.index(variant)
    sums = {name: float(losses.columns[name][place].sum()) for name in LOSS_COLUMNS}
    per_token = sums["nll"] / sums["num_tokens"]
    row = [variant, f"{len(losses.ids):,}", f"{per_token:.4f}", _perplexity(per_token)]
    row.append(f"{sums['nll'] / sums['num_characters']:.4f}")
    if outputs is None or variant not in outputs.variants:
        return [*row, "0", NOTHING, NOTHING, NOTHING]
    means = {name: float(c[outputs.variants.index(variant)].mean()) for name, c in outputs.columns.items()}
    mark = f"{means['mark']:.2f}" if "mark" in means else NOTHING
    return [*row, f"{len(outputs.ids):,}", f"{means['chrf']:.1f}", f"{means['rouge_l']:.3f}", mark]


def _perplexity(loss: float) -> str:
    return f"{exp(loss):.2f}" if loss < 20 else "> 10^8"


def _against_best(ranking: Ranking, place: int) -> list[str]:
    if place == ranking.best:
        return ["", "", "chosen"]
    difference = ranking.values[place] - ranking.values[ranking.best]
    verdict = "noise" if ranking.is_noise(place, ranking.best) else "worse"
    return [f"{difference:+.4f}", _ends(ranking.difference(place, ranking.best)), verdict]


def sentences(ranking: Ranking) -> list[str]:
    """What is chosen, from whom it cannot be told apart, and whether every seed gives the same order."""
    names, best, rows = ranking.scored.variants, ranking.best, len(ranking.scored.ids)
    value = f"{ranking.values[best]:.4f} {ranking.measure.title}"
    if len(names) == 1:
        return [f"{names[best]} is the only variant: {value} on {rows:,} rows; nothing to choose from."]
    found = [f"chosen: {names[best]}, {value}, the best of {len(names)} on {rows:,} rows."]
    others = ranking.order[1:]
    noise = [place for place in others if ranking.is_noise(place, best)]
    for place in noise:
        found.append(
            f"noise: {names[best]} and {names[place]} cannot be told apart by these {rows:,} rows "
            f"(difference {ranking.values[place] - ranking.values[best]:+.4f}, {_interval(ranking, place, best)})."
        )
    if clear := [names[place] for place in others if place not in noise]:
        found.append(f"worse than {names[best]} beyond noise: {', '.join(clear)}.")
    return [*found, _seed_sentence(ranking)]


def _seed_sentence(ranking: Ranking) -> str:
    names, seeds = ranking.scored.variants, ranking.scored.seeds
    if not seeds:
        return "The variants share no seed: each is the mean over its own, and what a seed changes is in no interval."
    if len(seeds) == 1:
        return (
            f"One seed ({seeds[0]}): what another one would change is in no interval; train each variant with "
            f"seed={seeds[0] + 1}, too."
        )
    shown = ", ".join(map(str, seeds))
    if not ranking.swapped:
        return f"The ranking is the same with each of the seeds {shown}: {' > '.join(names[p] for p in ranking.order)}."
    orders = [
        f"seed {seed}: {' > '.join(names[place] for place in ranking.order_of_seed(number))}"
        for number, seed in enumerate(seeds)
    ]
    pairs = [
        f"{names[one]} and {names[two]} ({_interval(ranking, two, one)})" for one, two in ranking.swapped[:MOST_NAMED]
    ]
    more = f" and {len(ranking.swapped) - MOST_NAMED} more pairs" if len(ranking.swapped) > MOST_NAMED else ""
    return (
        f"The ranking changes with the seed ({'; '.join(orders)}). Their order is noise: {', '.join(pairs)}{more}; "
        "the order of all other pairs is the same with every seed."
    )


def other_choices(comparison: Comparison) -> list[str]:
    """What the other measures would choose, and whether they really tell it from the chosen one."""
    if len(comparison.losses.variants) < 2:
        return []
    chosen = comparison.ranking.scored.variants[comparison.ranking.best]
    found = []
    for measure in comparison.measures[1:]:
        ranking = comparison.rankings[measure.key]
        names = ranking.scored.variants
        if names[ranking.best] == chosen:
            found.append(f"{measure.title}: the same choice.")
            continue
        mine = names.index(chosen)
        verdict = "noise" if ranking.is_noise(mine, ranking.best) else "beyond noise"
        found.append(f"{measure.title}: would choose {names[ranking.best]} ({verdict}).")
    return found


def notes(comparison: Comparison) -> str:
    losses = comparison.losses
    lines = [
        f"Losses: of the {len(losses.ids):,} held-out answers that every variant was scored on, in "
        f"{len(np.unique(losses.groups)):,} groups. Intervals: percentiles of {NUM_RESAMPLES:,} resamples of groups "
        "and of seeds, the same for all variants, each for its own difference; the best of several on the same rows "
        "looks a little better than it is. noise: the interval holds 0, or seeds disagree about the sign."
    ]
    if not losses.same_tokens:
        lines.append(
            "The variants cut these answers into different tokens: losses per token and perplexities are not compared, "
            "losses per character are."
        )
    if fewer := {name: number for name, number in comparison.num_rows.items() if number != len(losses.ids)}:
        kept = ", ".join(f"{name} {number:,}" for name, number in fewer.items())
        lines.append(f"Only common rows with the same answer are compared: {len(losses.ids):,}; scored were {kept}.")
    if comparison.outputs and comparison.left_out:
        lines.append(f"{', '.join(comparison.left_out)} wrote no outputs (rows=50 generates some).")
    return " ".join(lines)


def summary(comparison: Comparison) -> list[dict[str, object]]:
    """One entry per variant for judge.json, the best first."""
    ranking = comparison.ranking
    return [
        {
            "variant": ranking.scored.variants[place],
            "value": float(ranking.values[place]),
            "by_seed": ranking.by_seed[place].tolist(),
            "interval": _pair(ranking.interval(place)),
            "difference_to_best": float(ranking.values[place] - ranking.values[ranking.best]),
            "difference_interval": _pair(ranking.difference(place, ranking.best)),
            "p": ranking.p(place, ranking.best),
            "verdict": _against_best(ranking, place)[-1],
        }
        for place in ranking.order
    ]


def _pair(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _ends(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _interval(ranking: Ranking, place: int, against: int) -> str:
    return f"95 % interval {_ends(ranking.difference(place, against))}"
