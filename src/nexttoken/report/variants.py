"""Variants of an open task side by side: a table with the chosen one, and plain words where a difference is noise."""

from math import exp

import numpy as np

from nexttoken.errors import first_five
from nexttoken.metrics.intervals import NUM_RESAMPLES, Interval
from nexttoken.report.comparison import LOSS_COLUMNS, Comparison
from nexttoken.report.markdown import NOTHING, markdown
from nexttoken.report.ranking import PER_CHARACTER, PER_TOKEN, Ranking
from nexttoken.report.verdict import difference_ends, name_of_verdict, other_choices, sentences


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
        return ["", "", name_of_verdict(ranking, place)]
    difference = ranking.values[place] - ranking.values[ranking.best]
    return [f"{difference:+.4f}", difference_ends(ranking, place, ranking.best), name_of_verdict(ranking, place)]


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
    if comparison.unshared:
        lines.append(f"Not compared, as not every variant has the seed: {first_five(comparison.unshared)}.")
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
            "verdict": name_of_verdict(ranking, place),
        }
        for place in ranking.order
    ]


def _pair(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
