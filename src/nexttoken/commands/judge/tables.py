"""Every held-out row of every run with what was measured of it: the table that variants are ranked by."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nexttoken.commands.judge.marking import Judge, asked
from nexttoken.commands.judge.outputs import Written
from nexttoken.metrics.texts import TEXT_METRICS
from nexttoken.runs.read_open import OpenRun
from nexttoken.types import Example


def measured(
    runs: Sequence[OpenRun], written: Sequence[Written], judge: Judge | None, rubric: str
) -> list[pd.DataFrame]:
    """A table per run: id, group, costs, fold; output, its text scores and marks, NaN where nothing was written."""
    tables = [_scored(run, own) for run, own in zip(runs, written, strict=True)]
    asking = [_asked(place, table, own, rubric) for place, (table, own) in enumerate(zip(tables, written, strict=True))]
    examples = [example for some in asking for example in some]
    if judge is None or not examples:
        return tables
    marks = judge.mark(examples)  # all runs at once: the judge is loaded once
    frame = pd.DataFrame({"key": [example.id for example in examples], **marks.columns})
    return [_marked(place, table.drop(columns="mark"), frame) for place, table in enumerate(tables)]


def _scored(run: OpenRun, own: Written) -> pd.DataFrame:
    rows = run.rows
    rows["output"] = rows["id"].map(own.outputs).astype(object)
    references = rows["id"].map({row_id: example.answer for row_id, example in own.examples.items()})
    known = rows["output"].notna() & references.notna()
    outputs, wanted = rows.loc[known, "output"].tolist(), references[known].tolist()
    for metric in TEXT_METRICS:
        rows[metric.name] = np.nan
        rows.loc[known, metric.name] = metric.score(outputs, wanted)
    return rows.assign(mark=np.nan)


def _asked(place: int, table: pd.DataFrame, own: Written, rubric: str) -> list[Example]:
    """The run's outputs as rows for the judge; ids are unique over all runs."""
    known = table[table["output"].notna()]
    return [
        asked(_key(place, row_id), own.examples[row_id], output, rubric)
        for row_id, output in zip(known["id"], known["output"], strict=True)
    ]


def _marked(place: int, table: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    keys = table["id"].map(lambda row_id: _key(place, row_id))
    return table.assign(key=keys).merge(marks, on="key", how="left").drop(columns="key")


def _key(place: int, row_id: str) -> str:
    return f"{place}:{row_id}"
