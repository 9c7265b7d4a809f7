"""The part of a comparison by one metric: the table of variants, a sentence per difference, the values of each seed."""

from nexttoken.metrics.intervals import noise_band
from nexttoken.report.markdown import (
    difference_cell,
    digits_for,
    digits_of_column,
    interval_cell,
    loss_cell,
    markdown,
    mean_cell,
    plain,
)
from nexttoken.report.ranking import Ranking


def metric_section(ranking: Ranking, first: int, by: str) -> list[str]:
    """Markdown blocks; the other variants are compared with the one at place `first`.

    Numbers have the decimals that the intervals of their column support.
    """
    name, variants, by_seed, seeds = ranking.measure.title, ranking.variants, ranking.by_seed, ranking.scored.seeds
    others = [place for place in range(len(variants)) if place != first]
    own, apart = [*map(ranking.interval, range(len(variants)))], {n: ranking.difference(n, first) for n in others}
    digits, fine = digits_of_column(own), digits_of_column(apart.values())
    rows, sentences = [], []
    values = [[variant, *(loss_cell(one, digits=fine) for one in by_seed[n])] for n, variant in enumerate(variants)]
    for place, variant in enumerate(variants):
        score, interval = mean_cell(by_seed[place], digits=digits), interval_cell(own[place], digits=digits)
        row = [variant, str(len(seeds)), score, interval]
        if place == first:
            rows.append([*row, "", "", ""])
            continue
        differences, p = by_seed[place] - by_seed[first], ranking.p(place, first)
        beside = [mean_cell(differences, "+", fine), interval_cell(apart[place], "+", fine)]
        rows.append([*row, *beside, "< 0.001" if p < 0.001 else f"{p:.3f}"])
        sentences.append(f"- {_sentence(ranking, place, first)}")
        values.append([f"{variant} vs. {variants[first]}", *(difference_cell(one, fine) for one in differences)])
    if len(seeds) > 1:
        band = f"differ by less than {noise_band(by_seed):.{fine}f} in 95 % of cases"
        sentences.append(f"- noise: two runs of one variant with other seeds {band}")
    header = [by, "seeds", name, "95 % interval", f"vs. {variants[first]}", "its 95 % interval", "p"]
    return [markdown(header, rows), "\n".join(sentences), markdown([f"{name} per seed", *map(str, seeds)], values)]


def _sentence(ranking: Ranking, place: int, first: int) -> str:
    """`B is 0.012 worse than A in log loss (95 % interval 0.001 to 0.024)`, or that nothing is to be seen."""
    variant, against, name = plain(ranking.variants[place]), plain(ranking.variants[first]), ranking.measure.title
    interval = ranking.difference(place, first)
    digits = digits_for(interval)
    if 0 in interval:
        return f"{variant} and {against}: no difference to be seen in {name} ({interval_cell(interval, '+', digits)})"
    difference = float((ranking.by_seed[place] - ranking.by_seed[first]).mean())
    verdict = "better" if (difference > 0) == ranking.measure.higher_is_better else "worse"
    ends = interval_cell(interval if difference > 0 else -interval, digits=digits)
    return f"{variant} is {abs(difference):.{digits}f} {verdict} than {against} in {name} (95 % interval {ends})"
