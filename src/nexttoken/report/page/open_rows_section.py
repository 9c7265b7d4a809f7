"""The section of single rows with open answers: what was asked, what was wanted, and what the best run wrote."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from nexttoken.errors import UserError, visible
from nexttoken.report.page.open_chapter import OpenChapter
from nexttoken.report.page.section import Section, render
from nexttoken.types import DIALOGUE, Example

MAX_ROWS = 100  # with the highest loss, and as many with the lowest score of what was written
MAX_CHARACTERS = 1_000  # of a text, unless all are wanted whole
SPEAKERS = ("user", "assistant")


def section(chapter: OpenChapter) -> Section | None:
    """The rows that the best run found hardest, with their texts; None where no run's texts are here."""
    place = _best(chapter)
    examples, run = chapter.outputs[place].examples, chapter.runs[place]
    if not examples:
        return None
    table = chapter.tables[run.variant, run.seed]
    table = table.assign(per_character=table["nll"] / table["num_characters"])
    listed = _hardest(table[table["id"].isin(examples.keys())], None if chapter.every_row else MAX_ROWS)
    limit = None if chapter.every_row else MAX_CHARACTERS
    rows = [_row(row, examples[row["id"]], limit) for row in listed.to_dict("records")]
    html = render("open_rows.html.jinja", key=chapter.key, run=str(run), rows=rows, number=len(table))
    return Section("rows", "Rows", html)


def _best(chapter: OpenChapter) -> int:
    """The place of the best variant's run with the lowest seed; of the first run where they cannot be compared."""
    try:
        ranking = chapter.comparison.ranking
    except UserError:
        return 0
    own = [place for place, run in enumerate(chapter.runs) if run.variant == ranking.variants[ranking.best]]
    return min(own, key=lambda place: chapter.runs[place].seed)


def _hardest(table: pd.DataFrame, number: int | None) -> pd.DataFrame:
    """The rows with the lowest chrF, then those with the highest loss; `number` of each, None for all."""
    worst = table.dropna(subset="chrf").sort_values("chrf", kind="stable")[:number]
    costly = table.sort_values("per_character", ascending=False, kind="stable")[:number]
    return pd.concat([worst, costly]).drop_duplicates("id")


def _row(row: Mapping[Any, Any], example: Example, limit: int | None) -> dict[str, Any]:
    texts = [(name, _shortened(text, limit)) for name, text in _asked(example) if text]
    written = row["output"] if isinstance(row["output"], str) else None
    texts.append(("wanted", _shortened(example.answer or "", limit)))
    return {**row, "texts": texts, "written": written if written is None else _shortened(written, limit)}


def _asked(example: Example) -> list[tuple[str, str]]:
    """The parts of what was asked, in their order: (name, text)."""
    if DIALOGUE in example.fields:
        return [(SPEAKERS[place % 2], turn) for place, turn in enumerate(example.fields[DIALOGUE])]
    return [(name, "\n".join(texts)) for name, texts in example.fields.items()]


def _shortened(text: str, limit: int | None) -> str:
    """The text with hidden characters made visible, and its beginning only where it is above the limit."""
    if limit is None or len(text) <= limit:
        return visible(text)
    return f"{visible(text[:limit])} … cut, {len(text) - limit:,} characters more"
