"""What runs wrote to held-out rows: read from their folds, or generated there where it is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nexttoken.commands.judge_marks import Judge, asked
from nexttoken.metrics.texts import TEXT_METRICS
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read_open import OpenFold, OpenRun
from nexttoken.types import DIALOGUE, Example, TextPredictions


@dataclass(frozen=True)
class Written:
    """Outputs to held-out rows, and what was asked for them, whose answers are the references; both by id.

    A dialogue is asked for each of its answers, as `<id>#<k>`; every other row is asked as it is.
    """

    outputs: Mapping[str, str]
    examples: Mapping[str, Example]


def written_by(run: OpenRun, num_rows: int, input_dir: str | None, base: str | None) -> Written:
    """Outputs of a run's folds; with `num_rows`, the first so many held-out rows of each fold get one if they lack it.

    Raises UserError where generated.jsonl is broken, or the run's data is not there any more.
    """
    wanting = {fold.folder: _without_output(fold, num_rows) for fold in run.folds}
    if not any(wanting.values()) and not any((fold.folder / "generated.jsonl").exists() for fold in run.folds):
        return Written({}, {})
    loaded = LoadedRun.load(RunFolder(run.folder), input_dir, base=base)
    outputs: dict[str, str] = {}
    examples: dict[str, Example] = {}
    for fold in run.folds:
        folder = FoldFolder(fold.folder)
        held_out = loaded.held_out(folder)
        if missing := wanting[fold.folder]:
            _generate(loaded, folder, [example for example in held_out if example.id in missing])
        outputs |= _read(fold)
        examples |= {example.id: example for example in _asked_for(loaded, held_out)}
    return Written({row_id: text for row_id, text in outputs.items() if row_id in examples}, examples)


def _asked_for(loaded: LoadedRun, held_out: list[Example]) -> list[Example]:
    """What the run asks for rows; passages or demonstrations, which do not matter here, are not searched for."""
    is_dialogue = any(DIALOGUE in example.fields for example in held_out)
    return loaded.parts.inference.views(held_out, []) if is_dialogue else held_out


def _without_output(fold: OpenFold, num_rows: int) -> set[str]:
    """Rows among the first `num_rows`, in the order of oof.csv, that nothing was written to."""
    has = set(_read(fold)) if num_rows else set()
    first = fold.rows[fold.rows["row"].isin(fold.rows["row"].unique()[:num_rows])]
    return set(first.loc[~first["id"].isin(has), "row"])


def _read(fold: OpenFold) -> dict[str, str]:
    return dict(zip((texts := FoldFolder(fold.folder).texts()).ids, texts.texts, strict=True))


def _generate(loaded: LoadedRun, folder: FoldFolder, examples: list[Example]) -> None:
    """Write outputs to `examples` and save them behind those that the fold has already."""
    fresh, old = loaded.generate(folder, examples), folder.texts()
    old = _without(old, set(fresh.ids))
    columns = {name: np.concatenate([old.columns[name], fresh.columns[name]]) for name in ("num_tokens", "finished")}
    folder.save_texts(TextPredictions(old.ids + fresh.ids, old.texts + fresh.texts, columns))


def _without(texts: TextPredictions, ids: set[str]) -> TextPredictions:
    kept = [place for place, row_id in enumerate(texts.ids) if row_id not in ids]
    columns = {name: column[kept] for name, column in texts.columns.items()}
    return TextPredictions(tuple(texts.ids[n] for n in kept), tuple(texts.texts[n] for n in kept), columns)


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
        rows.loc[known, metric.name] = metric.function(outputs, wanted)
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
