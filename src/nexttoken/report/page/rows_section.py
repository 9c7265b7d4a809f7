"""The section of rows: single rows with their texts, what each run said, and what the model read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.files import read_json
from nexttoken.errors import UserError
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.chosen_rows import NUM_SHOWN, VIEWS, ChosenRows
from nexttoken.report.page.row_prompts import read_prompts
from nexttoken.report.page.row_texts import RowTexts, shown_text, tags_of
from nexttoken.report.page.section import Section, render
from nexttoken.runs.scored_runs import Run
from nexttoken.types import Example

MAX_RUNS = 8  # whose answers stand beside each other
MAX_CHOICES = 40  # of a filter
MAX_NAME = 80  # characters of a class or a tag
MAX_PROMPT_BYTES = 500_000


def section(chapter: Chapter) -> Section:
    """A browser of the rows of up to MAX_RUNS runs, the best ones."""
    runs = chapter.runs[:MAX_RUNS]
    chosen = ChosenRows.of(runs, chapter.every_row)
    examples = [chapter.examples.get(one) for one in chosen.table.ids]
    texts = RowTexts.of(examples, chosen.order, _task(chapter), chapter.every_row)
    tags = {name: _coded(values) for name, values in tags_of(examples).items()}
    listed = {*(row for rows in chosen.views[0].values() for row in rows)}
    data = {
        "runs": [shown_text(run.title) for run in runs],
        "names": _class_names(chapter),
        "fields": texts.fields,
        "texts": texts.rows,
        "tags": tags,
        "votes": _votes(examples),
        **chosen.answers(),
        "outside": chosen.outside(runs),
        **_prompts(chapter, runs[0], chosen.table.ids, [row for row in chosen.order if row in listed]),
    }
    html = render(
        "rows.html.jinja",
        key=chapter.key,
        runs=data["runs"],
        views={name: words for name, words in VIEWS.items() if any(one.get(name) for one in chosen.views)},
        classes=data["names"],
        folds=np.unique(chosen.table.folds).tolist(),
        tags={name: tag["values"] for name, tag in tags.items() if len(tag["values"]) <= MAX_CHOICES},
        missing=chapter.why_no_examples,
        num_left_out=len(chapter.runs) - len(runs),
        num_rows=chosen.num_rows,
        num_kept=len(examples),
        num_texts=sum(one is not None for one in texts.rows),
    )
    return Section("rows", "Rows", html, data)


def _votes(examples: Sequence[Example | None]) -> list[list[float]]:
    """The shares of the classes of each row; [] where no row has votes."""
    votes = [[round(vote, 3) for vote in one.votes] if one is not None else [] for one in examples]
    return votes if any(votes) else []


def _coded(values: list[str]) -> dict[str, Any]:
    codes, known = pd.factorize(np.array(values, dtype=object), sort=True)
    return {"values": [shown_text(value, MAX_NAME) for value in known.tolist()], "of": codes.tolist()}


def _task(chapter: Chapter) -> Any:
    try:
        return chapter.load(chapter.runs[0]).parts.task
    except UserError:
        return None


def _class_names(chapter: Chapter) -> list[str]:
    """Names for people of the classes: those that the task shows, else its own."""
    names = getattr(_task(chapter), "class_names", None) or chapter.classes
    return [shown_text(str(name), MAX_NAME) for name in names]


def _prompts(chapter: Chapter, run: Run, ids: np.ndarray, rows: Sequence[int]) -> dict[str, Any]:
    """The prompts of the best run's rows by their places, the label tokens, and why a prompt is not there."""
    try:
        loaded = chapter.load(run)
        found, reason = read_prompts(loaded, {str(ids[row]) for row in rows})
        saved = read_json(loaded.folds[0].path / "labels.json") if found else {}
    except UserError as error:
        return {"prompts": {}, "spelled": [], "no_prompts": str(error)}
    prompts, left = {}, MAX_PROMPT_BYTES
    for row in rows:
        if (one := found.get(str(ids[row]))) is None:
            continue
        left -= sum(len(text.encode()) + 6 for _, text in one.pieces)
        if left < 0 and not chapter.every_row:
            break
        prompts[row] = {"pieces": one.pieces, "tokens": one.num_tokens, "cut": one.was_cut}
    parts = (saved.get(key, ()) for key in ("labels", "pieces", "continuations"))
    spelled = [dict(zip(("label", "tokens", "ids"), one, strict=True)) for one in zip(*parts, strict=True)]
    return {"prompts": prompts, "spelled": spelled[:NUM_SHOWN], "no_prompts": reason}
