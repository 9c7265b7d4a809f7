"""Variants of an open task side by side: the chosen one, plain words where a difference is noise, and a picture."""

from dataclasses import astuple
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.errors import first_five
from nexttoken.metrics.intervals import NUM_RESAMPLES
from nexttoken.report.figures import Lettering
from nexttoken.report.markdown import NOTHING, difference_cell, interval_cell, markdown, plain
from nexttoken.report.ranking import LOSS_COLUMNS, PER_CHARACTER, PER_TOKEN, Comparison, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_PAIRS = 5


def variants_page(comparison: Comparison) -> str:
    """Markdown: the table, the chosen variant, what is noise, whether seeds agree, what other measures say, notes."""
    sentences = [*ranking_sentences(comparison.ranking), *_other_choices(comparison)]
    points = "\n".join(f"- {plain(sentence)}" for sentence in sentences)
    return "\n\n".join([variants_table(comparison), points, _notes(comparison)])


def variants_table(comparison: Comparison) -> str:
    """A row per variant, the best first."""
    ranking, best = comparison.ranking, comparison.ranking.best
    header = ["variant", "rows", PER_TOKEN.title, "perplexity", PER_CHARACTER.title, "outputs", "chrF", "ROUGE-L"]
    header += ["mark", f"{ranking.measure.title} vs. {ranking.variants[best]}", "95 % interval", "verdict"]
    rows = []
    for place in ranking.order:
        against = [_difference(ranking, place, best), interval_cell(ranking.difference(place, best), "+")]
        beside = ["", ""] if place == best else against
        rows.append([*_cells(comparison, ranking.variants[place]), *beside, ranking.verdict(place)])
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


def ranking_sentences(ranking: Ranking) -> list[str]:
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
            f"(difference {_difference(ranking, place, best)}, {_interval(ranking, place, best)})."
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
    orders = [" > ".join(names[place] for place in ranking.order_of(of_seed)) for of_seed in ranking.by_seed.T]
    if not ranking.swapped:
        return f"The ranking is the same with each of the seeds {', '.join(map(str, seeds))}: {orders[0]}."
    by_seed = "; ".join(f"seed {seed}: {order}" for seed, order in zip(seeds, orders, strict=True))
    shown = ranking.swapped[:MAX_NAMED_PAIRS]
    pairs = ", ".join(f"{names[one]} and {names[two]} ({_interval(ranking, two, one)})" for one, two in shown)
    num_others = len(ranking.swapped) - len(shown)
    more = f" and {num_others} more pairs" if num_others else ""
    return (
        f"The ranking changes with the seed ({by_seed}). Their order is noise: {pairs}{more}; "
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


def _notes(comparison: Comparison) -> str:
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
    ranking, best = comparison.ranking, comparison.ranking.best
    return [
        {
            "variant": ranking.variants[place],
            "value": float(ranking.values[place]),
            "by_seed": ranking.by_seed[place].tolist(),
            "interval": list(astuple(ranking.interval(place))),
            "difference_to_best": float(ranking.values[place] - ranking.values[best]),
            "difference_interval": list(astuple(ranking.difference(place, best))),
            "p": ranking.p(place, best),
            "verdict": ranking.verdict(place),
        }
        for place in ranking.order
    ]


def _difference(ranking: Ranking, place: int, against: int) -> str:
    return difference_cell(ranking.values[place] - ranking.values[against])


def _interval(ranking: Ranking, place: int, against: int) -> str:
    return f"95 % interval {interval_cell(ranking.difference(place, against), '+')}"


def variants_plot(comparison: Comparison, path: Path) -> list[str]:
    """Write a PNG with a panel per measure, the deciding one first and its best variant on top.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    rankings = list(comparison.rankings.values())
    names = [rankings[0].variants[place] for place in rankings[0].order]
    lettering = Lettering.for_names(names)
    with lettering.figure(3.2 + 3.0 * len(rankings), 1.6 + 0.42 * len(names), path) as figure:
        panels = figure.subplots(1, len(rankings), sharey=True, squeeze=False)[0]
        for axes, ranking in zip(panels, rankings, strict=True):
            _panel(axes, ranking, names)
        panels[0].set_yticks(range(len(names)), [lettering.show(name) for name in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        panels[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return lettering.key


def _panel(axes: "Axes", ranking: Ranking, names: list[str]) -> None:
    """Differences to the first of `names`, which are paired by row: values' own intervals would hide them."""
    order = [ranking.variants.index(name) for name in names]
    chosen, heights = order[0], np.arange(len(names))
    intervals = [ranking.difference(place, chosen) for place in order]
    values = ranking.values[order] - ranking.values[chosen]
    error = np.abs(np.array([(interval.low, interval.high) for interval in intervals]).T - values)
    axes.errorbar(values, heights, xerr=error, fmt="o", color="C0", capsize=3, elinewidth=1, label="95 % interval")
    for number, seed in enumerate(ranking.scored.seeds if len(ranking.scored.seeds) > 1 else ()):
        by_seed = ranking.by_seed[order, number] - ranking.by_seed[chosen, number]
        axes.plot(by_seed, heights, "|", color=f"C{number + 1}", markersize=12, label=f"seed {seed}")
    axes.axvline(0, color="0.6", linewidth=0.8, linestyle="--")
    better = "higher" if ranking.measure.higher_is_better else "lower"
    axes.set(xlabel=f"{ranking.measure.title}, difference\nto the chosen one; {better} is better")
    axes.grid(axis="x", linewidth=0.4)
