"""The outputs of runs for their held-out rows: read or generated, and scored against the references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nexttoken.commands.judge_marks import Judge, output_to_mark
from nexttoken.metrics.texts import TEXT_METRICS
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read_open import OpenFold, OpenRun
from nexttoken.types import DIALOGUE, Example, TextPredictions


@dataclass(frozen=True)
class Outputs:
    """Texts that a run generated, and the examples they answer, both by id; the examples hold the references.

    A dialogue has an example for each of its answers, `<id>#<k>`.
    """

    texts: Mapping[str, str]
    examples: Mapping[str, Example]


def outputs_of(run: OpenRun, num_rows: int, input_dir: str | None, base: str | None) -> Outputs:
    """The outputs of a run's folds; those that the first `num_rows` held-out rows of each fold lack are generated.

    Raises UserError where generated.jsonl is broken, or the run's data is missing.
    """
    missing = [_rows_without_output(fold, num_rows) for fold in run.folds]
    if not any(missing) and not any((fold.folder / "generated.jsonl").exists() for fold in run.folds):
        return Outputs({}, {})
    loaded = LoadedRun.load(RunFolder(run.folder), input_dir, base=base)
    texts: dict[str, str] = {}
    examples: dict[str, Example] = {}
    for fold, ids in zip(run.folds, missing, strict=True):
        folder = FoldFolder(fold.folder)
        held_out = loaded.held_out(folder)
        if ids:
            _generate(loaded, folder, [example for example in held_out if example.id in ids])
        texts |= _texts_by_id(folder)
        if any(DIALOGUE in example.fields for example in held_out):
            held_out = loaded.parts.inference.views(held_out, [])  # without passages or demonstrations
        examples |= {example.id: example for example in held_out}
    return Outputs({row_id: text for row_id, text in texts.items() if row_id in examples}, examples)


def _rows_without_output(fold: OpenFold, num_rows: int) -> set[str]:
    """The rows without an output among the first `num_rows` of oof.csv."""
    known = _texts_by_id(FoldFolder(fold.folder)) if num_rows else {}
    first = fold.rows[fold.rows["row"].isin(fold.rows["row"].unique()[:num_rows])]
    return set(first.loc[~first["id"].isin(known.keys()), "row"])


def _texts_by_id(folder: FoldFolder) -> dict[str, str]:
    saved = folder.texts()
    return dict(zip(saved.ids, saved.texts, strict=True))


def _generate(loaded: LoadedRun, folder: FoldFolder, examples: list[Example]) -> None:
    """Generate outputs for `examples` and save them behind those that the fold already has."""
    new, old = loaded.generate(folder, examples), folder.texts()
    stays = [place for place, row_id in enumerate(old.ids) if row_id not in set(new.ids)]
    ids, texts = ((*(values[place] for place in stays),) for values in (old.ids, old.texts))
    columns = {
        name: np.concatenate([old.columns[name][stays], new.columns[name]]) for name in ("num_tokens", "finished")
    }
    folder.save_texts(TextPredictions(ids + new.ids, texts + new.texts, columns))


def score_outputs(
    runs: Sequence[OpenRun], outputs: Sequence[Outputs], judge: Judge | None, rubric: str
) -> list[pd.DataFrame]:
    """A table per run: id, group, costs, fold; output, its text scores and marks, NaN for rows without an output."""
    tables = [_score_texts(run, one) for run, one in zip(runs, outputs, strict=True)]
    rows = pd.concat(tables, keys=range(len(tables)))  # indexed by the place of the run, and the row
    known = rows[rows["output"].notna()]
    if judge is None or known.empty:
        return tables
    places = known.index.get_level_values(0)
    examples = [
        output_to_mark(f"{place}:{row_id}", outputs[place].examples[row_id], text, rubric)  # unique over all runs
        for place, row_id, text in zip(places, known["id"], known["output"], strict=True)
    ]
    marks = pd.DataFrame(judge.mark(examples).columns, index=known.index)  # the judge is loaded once for all runs
    marked = rows.drop(columns="mark").join(marks)
    return [marked.loc[place] for place in range(len(tables))]


def _score_texts(run: OpenRun, outputs: Outputs) -> pd.DataFrame:
    rows = run.rows
    rows["output"] = rows["id"].map(outputs.texts).astype(object)
    references = rows["id"].map({row_id: example.answer for row_id, example in outputs.examples.items()})
    known = rows["output"].notna() & references.notna()
    for metric in TEXT_METRICS:
        rows[metric.name] = np.nan
        rows.loc[known, metric.name] = metric.function(rows.loc[known, "output"].tolist(), references[known].tolist())
    return rows.assign(mark=np.nan)
