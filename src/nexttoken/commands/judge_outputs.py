"""The outputs of runs for their held-out rows, and the judge, a closed run that marks written answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nexttoken.errors import UserError
from nexttoken.metrics.decisions import expected_marks
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read_open import OpenRun, Outputs, saved_outputs, score_texts, texts_by_id
from nexttoken.tasks.marks import mark_example
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example, TextPredictions

RUBRIC = "rubric"
SPEAKERS = ("User", "Assistant")
WHOLE_DIALOGUE = "A conversation between a user and an assistant. Mark the assistant's part."


@dataclass(frozen=True)
class Judge:
    """A run of a marks task; with trainer.max_epochs=0, a model that was not trained to mark."""

    run: LoadedRun
    lowest: int

    @classmethod
    def load(cls, path: Path, base: str | None = None) -> "Judge":
        """Raises UserError for a run whose classes are not marks."""
        run = LoadedRun.load(RunFolder(path), base=base)
        classes = tuple(getattr(run.parts.task, "classes", ()))
        if not classes or not all(name.isdecimal() for name in classes):
            raise UserError(
                f"judge={path} answers {', '.join(classes) or 'with texts'}, not with marks; train one: "
                "python train.py task=marks, or with trainer.max_epochs=0 to use a model as it is"
            )
        return cls(run, int(classes[0]))

    def probs(self, examples: Sequence[Example]) -> np.ndarray:
        """Probabilities (N, K) of the marks `lowest`, `lowest` + 1, ... for `output_to_mark` or `answer_to_mark`.

        Raises UserError for a prompt that shows other fields.
        """
        predictions = self.run.answer(list(examples))
        place = {row_id: n for n, row_id in enumerate(predictions.ids)}
        return predictions.probs[[place[example.id] for example in examples]]


def output_to_mark(row_id: str, example: Example, output: str, rubric: str) -> Example:
    """An example that shows an output beside the example's answer as the reference.

    `rubric` is used where the example has none.
    """
    texts = _request(example) | {"response": output, "reference": example.answer or ""}
    return mark_example(row_id, texts | {RUBRIC: _join(example, RUBRIC).strip() or rubric})


def answer_to_mark(example: Example, rubric: str) -> Example:
    """An example that shows the answer of a training example, or a whole dialogue."""
    texts = _request(example) | {"response": example.answer or ""}
    if DIALOGUE in example.fields:
        turns = (*example.fields[DIALOGUE], *([example.answer] if example.answer else []))
        texts = {INSTRUCTION: WHOLE_DIALOGUE, "response": transcript(turns)}
    return mark_example(example.id, texts | {RUBRIC: _join(example, RUBRIC).strip() or rubric})


def transcript(turns: Sequence[str]) -> str:
    """`User: ...` and `Assistant: ...` in turn, a line each."""
    return "\n".join(f"{SPEAKERS[place % 2]}: {turn}" for place, turn in enumerate(turns))


def _request(example: Example) -> dict[str, str]:
    """The texts that the answer responds to."""
    if DIALOGUE in example.fields:
        return {INSTRUCTION: transcript(example.fields[DIALOGUE])}
    return {name: _join(example, name) for name in (INSTRUCTION, INPUT)}


def _join(example: Example, field: str) -> str:
    return "\n".join(example.fields.get(field, ()))


def outputs_of(run: OpenRun, num_rows: int, input_dir: str | None, base: str | None) -> Outputs:
    """The outputs of a run's folds; those that the first `num_rows` held-out rows of each fold lack are generated.

    Raises UserError where generated.jsonl is broken, or the run's data is missing.
    """
    missing = {fold: _rows_without_output(fold, rows, num_rows) for fold, rows in run.folds.items()}
    if not any(missing.values()) and not any((fold.path / "generated.jsonl").exists() for fold in run.folds):
        return Outputs({}, {})
    loaded = LoadedRun.load(RunFolder(run.folder), input_dir, base=base)
    for fold, ids in missing.items():
        if ids:
            _generate(loaded, fold, [example for example in loaded.held_out(fold) if example.id in ids])
    return saved_outputs(run, loaded)


def _rows_without_output(fold: FoldFolder, rows: pd.DataFrame, num_rows: int) -> set[str]:
    """The rows without an output among the first `num_rows` of oof.csv."""
    known = texts_by_id(fold) if num_rows else {}
    first = rows[rows["row"].isin(rows["row"].unique()[:num_rows])]
    return set(first.loc[~first["id"].isin(known.keys()), "row"])


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
    tables = [score_texts(run, one) for run, one in zip(runs, outputs, strict=True)]
    rows = pd.concat(tables, keys=range(len(tables)))  # indexed by the place of the run, and the row
    known = rows[rows["output"].notna()]
    if judge is None or known.empty:
        return tables
    places = known.index.get_level_values(0)
    examples = [
        output_to_mark(f"{place}:{row_id}", outputs[place].examples[row_id], text, rubric)  # unique over all runs
        for place, row_id, text in zip(places, known["id"], known["output"], strict=True)
    ]
    probs = judge.probs(examples)  # of all runs: the judge is loaded once
    columns = {"mark": expected_marks(probs, judge.lowest)} | {f"p{judge.lowest + k}": p for k, p in enumerate(probs.T)}
    marked = rows.drop(columns="mark").join(pd.DataFrame(columns, index=known.index))
    return [marked.loc[[place]].droplevel(0) for place in range(len(tables))]
