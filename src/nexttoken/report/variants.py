"""Variants of an open task side by side: a table with the chosen one, and plain words where a difference is noise."""

from itertools import pairwise
from math import exp

import numpy as np

from nexttoken.errors import first_five
from nexttoken.metrics.intervals import NUM_RESAMPLES
from nexttoken.report.markdown import NOTHING, interval_cell, markdown
from nexttoken.report.ranking import LOSS_COLUMNS, PER_CHARACTER, PER_TOKEN, Comparison, Ranking

MAX_NAMED_PAIRS = 5


def variants_page(comparison: Comparison) -> str:
    """Markdown: the table, the chosen variant, what is noise, whether seeds agree, what other measures say, notes."""
    sentences = [*_sentences(comparison.ranking), *_other_choices(comparison)]
    points = "\n".join(f"- {sentence}" for sentence in sentences)
    return "\n\n".join([variants_table(comparison), points, notes(comparison)])


def variants_table(comparison: Comparison) -> str:
    """A row per variant, the best first."""
    ranking = comparison.ranking
    header = ["variant", "rows", PER_TOKEN.title, "perplexity", PER_CHARACTER.title, "outputs", "chrF", "ROUGE-L"]
    header += ["mark", f"{ranking.measure.title} − {ranking.variants[ranking.best]}", "95 % interval", "verdict"]
    rows = []
    for place in ranking.order:
        against = ["", ""]
        if place != ranking.best:
            difference = ranking.values[place] - ranking.values[ranking.best]
            against = [f"{difference:+.4f}", interval_cell(ranking.difference(place, ranking.best), "+")]
        rows.append([*_cells(comparison, ranking.variants[place]), *against, ranking.verdict(place)])
    return markdown(header, rows)


def _cells(comparison: Comparison, variant: str) -> list[str]:
    losses, outputs = comparison.losses, comparison.outputs
    place = losses.variants.index(variant)
    nll, tokens, characters = (float(losses.columns[name][place].sum()) for name in LOSS_COLUMNS)
    perplexity = f"{exp(nll / tokens):.2f}" if nll / tokens < 20 else "> 10^8"
    row = [variant, f"{losses.num_rows:,}", f"{nll / tokens:.4f}", perplexity, f"{nll / characters:.4f}"]
    if outputs is None or variant not in outputs.variants:
        return [*row, "0", NOTHING, NOTHING, NOTHING]
    means = {name: float(c[outputs.variants.index(variant)].mean()) for name, c in outputs.columns.items()}
    mark = f"{means['mark']:.2f}" if "mark" in means else NOTHING
    return [*row, f"{outputs.num_rows:,}", f"{means['chrf']:.1f}", f"{means['rouge_l']:.3f}", mark]


def _sentences(ranking: Ranking) -> list[str]:
    """The chosen variant, those that cannot be told from it, and whether every seed gives the same order."""
    names, best, rows = ranking.variants, ranking.best, ranking.scored.num_rows
    value = f"{ranking.values[best]:.4f} {ranking.measure.title}"
    if len(names) == 1:
        return [f"{names[best]} is the only variant: {value} on {rows:,} rows; nothing to choose from."]
    lines = [f"chosen: {names[best]}, {value}, the best of {len(names)} on {rows:,} rows."]
    others = ranking.order[1:]
    noise = [place for place in others if ranking.is_noise(place, best)]
    for place in noise:
        lines.append(
            f"noise: {names[best]} and {names[place]} cannot be told apart by these {rows:,} rows "
            f"(difference {ranking.values[place] - ranking.values[best]:+.4f}, {_interval(ranking, place, best)})."
        )
    if clear := [names[place] for place in others if place not in noise]:
        lines.append(f"worse than {names[best]} beyond noise: {', '.join(clear)}.")
    if alike := [f"{names[one]} and {names[two]}" for one, two in pairwise(others) if ranking.is_noise(two, one)]:
        lines.append(f"noise further down: {', '.join(alike)}.")
    return [*lines, _seed_sentence(ranking)]


def _seed_sentence(ranking: Ranking) -> str:
    names, seeds = ranking.variants, ranking.scored.seeds
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
    shown_pairs = ranking.swapped[:MAX_NAMED_PAIRS]
    pairs = [f"{names[one]} and {names[two]} ({_interval(ranking, two, one)})" for one, two in shown_pairs]
    num_others = len(ranking.swapped) - len(pairs)
    more = f" and {num_others} more pairs" if num_others else ""
    return (
        f"The ranking changes with the seed ({'; '.join(orders)}). Their order is noise: {', '.join(pairs)}{more}; "
        "the order of all other pairs is the same with every seed."
    )


def _other_choices(comparison: Comparison) -> list[str]:
    """The choice of each other measure, and whether it really tells it from the chosen one."""
    if len(comparison.losses.variants) < 2:
        return []
    deciding, *others = comparison.rankings.values()
    chosen, lines = deciding.variants[deciding.best], []
    for ranking in others:
        best = ranking.variants[ranking.best]
        verdict = "noise" if ranking.is_noise(ranking.variants.index(chosen), ranking.best) else "beyond noise"
        choice = "the same choice" if best == chosen else f"would choose {best} ({verdict})"
        lines.append(f"{ranking.measure.title}: {choice}.")
    return lines


def notes(comparison: Comparison) -> str:
    losses = comparison.losses
    lines = [
        f"Losses: of the {losses.num_rows:,} held-out answers that every variant was scored on, in "
        f"{len(np.unique(losses.groups)):,} groups. Intervals: percentiles of {NUM_RESAMPLES:,} resamples of groups "
        "and of seeds, the same for all variants, each for its own difference; the best of several on the same rows "
        "looks a little better than it is. noise: the interval holds 0, or seeds disagree about the sign."
    ]
    if not losses.same_tokens:
        lines.append(
            "The variants cut these answers into different tokens: losses per token and perplexities are not compared, "
            "losses per character are."
        )
    if fewer := {name: number for name, number in comparison.num_rows.items() if number != losses.num_rows}:
        scored = ", ".join(f"{name} {number:,}" for name, number in fewer.items())
        lines.append(f"Only common rows with the same answer are compared: {losses.num_rows:,}; scored were {scored}.")
    if comparison.unshared:
        lines.append(f"Not compared, as not every variant has the seed: {first_five(comparison.unshared)}.")
    if comparison.outputs and comparison.left_out:
        lines.append(f"{', '.join(comparison.left_out)} wrote no outputs (rows=50 generates some).")
    return " ".join(lines)


def summary(comparison: Comparison) -> list[dict[str, object]]:
    """One entry per variant for judge.json, the best first."""
    ranking = comparison.ranking
    interval = {place: ranking.interval(place) for place in ranking.order}
    difference = {place: ranking.difference(place, ranking.best) for place in ranking.order}
    return [
        {
            "variant": ranking.variants[place],
            "value": float(ranking.values[place]),
            "by_seed": ranking.by_seed[place].tolist(),
            "interval": [interval[place].low, interval[place].high],
            "difference_to_best": float(ranking.values[place] - ranking.values[ranking.best]),
            "difference_interval": [difference[place].low, difference[place].high],
            "p": ranking.p(place, ranking.best),
            "verdict": ranking.verdict(place),
        }
        for place in ranking.order
    ]


def _interval(ranking: Ranking, place: int, against: int) -> str:
    return f"95 % interval {interval_cell(ranking.difference(place, against), '+')}"
