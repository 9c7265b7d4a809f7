"""The section of runs with open answers: losses, scores of written texts, and what is noise."""

from typing import Any

import numpy as np

from nexttoken.report.markdown import digits_for
from nexttoken.report.page.open_chapter import OpenChapter, references
from nexttoken.report.page.section import Section, render
from nexttoken.report.ranking import LOSS_COLUMNS, PER_CHARACTER, PER_TOKEN, Comparison
from nexttoken.report.variants import ranking_sentences


def section(chapter: OpenChapter) -> Section:
    """A row for each variant, the best first, and the difference of each to the best.

    Raises UserError where the variants share no row.
    """
    comparison = chapter.comparison
    html = render(
        "open_runs.html.jinja",
        key=chapter.key,
        measure=comparison.measure,
        losses=[measure for measure in (PER_TOKEN, PER_CHARACTER) if measure != comparison.measure],
        rows=[_row(comparison, place) for place in comparison.ranking.order],
        scored=comparison.losses,
        references=references(chapter.runs[0]),
        sentences=ranking_sentences(comparison.ranking),
        reasons=chapter.reasons,
    )
    return Section("runs", "Runs", html)


def _row(comparison: Comparison, place: int) -> dict[str, Any]:
    ranking, best = comparison.ranking, comparison.ranking.best
    name = ranking.variants[place]
    interval, difference = ranking.interval(place), ranking.difference(place, best)
    in_losses = comparison.losses.variants.index(name)
    nll, tokens, characters = (float(comparison.losses.columns[c][in_losses].sum()) for c in LOSS_COLUMNS)
    return {
        "name": name,
        "value": float(ranking.values[place]),
        "interval": interval,
        "digits": digits_for(interval),
        "difference": None if place == best else float(ranking.values[place] - ranking.values[best]),
        "difference_interval": None if place == best else difference,
        "difference_digits": digits_for(difference),
        "verdict": "best" if place == best else ranking.verdict(place),
        "losses": {PER_TOKEN: nll / tokens, PER_CHARACTER: nll / characters},
        "written": _means(comparison, name),
    }


def _means(comparison: Comparison, name: str) -> dict[str, float]:
    """The means of chrF, ROUGE-L and marks, NaN where the variant wrote nothing, and the number of texts."""
    means, outputs = dict.fromkeys(("chrf", "rouge_l", "mark"), float("nan")), comparison.outputs
    if outputs is None or name not in outputs.variants:
        return {**means, "number": 0}
    place = outputs.variants.index(name)
    written = {key: float(np.mean(column[place])) for key, column in outputs.columns.items()}
    return means | written | {"number": outputs.num_rows}
