"""A ranking in words: what is chosen, what is noise, whether the seeds agree, and what other measures would choose."""

from itertools import pairwise

from nexttoken.report.comparison import Comparison
from nexttoken.report.ranking import Ranking

MOST_NAMED = 5  # pairs in a sentence


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
    if alike := [f"{names[one]} and {names[two]}" for one, two in pairwise(others) if ranking.is_noise(two, one)]:
        found.append(f"noise further down: {', '.join(alike)}.")
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


def name_of_verdict(ranking: Ranking, place: int) -> str:
    """`chosen`, `noise` or `worse`."""
    if place == ranking.best:
        return "chosen"
    return "noise" if ranking.is_noise(place, ranking.best) else "worse"


def difference_ends(ranking: Ranking, place: int, against: int) -> str:
    """`-0.0123 to +0.0045`: the 95 % interval of one variant's value less the other's."""
    interval = ranking.difference(place, against)
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _interval(ranking: Ranking, place: int, against: int) -> str:
    return f"95 % interval {difference_ends(ranking, place, against)}"
