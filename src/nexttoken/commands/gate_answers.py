"""The answers of a run's folds to their held-out questions, without and with passages, cached in gate.csv."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.files import whole_file
from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError, one_line
from nexttoken.inference import ConfidenceGated, WithPassages
from nexttoken.inference.gate import Trial
from nexttoken.inference.once import remembering
from nexttoken.inference.passages import has_passages
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.types import Example

PASSES = ("first", "second")  # without and with passages; their probabilities are the columns <pass>_p_<class>
COLUMNS = {"ids": "id", "folds": "fold", "groups": "group", "labels": "label"}  # by the field of a Trial


def answer_both_ways(loaded: LoadedRun, path: Path, again: bool = False) -> Trial:
    """Answer each fold's held-out questions both ways; answers that `path` has of the same training are used.

    `path` is written after every fold, so that a killed command continues from the last one. Raises UserError for a
    broken file.
    """
    saved = pd.DataFrame(columns=["id", "fold", "fold_mark"]) if again or not path.exists() else read_rows(path)
    folds = load_folds(loaded.folder.path / "folds.csv")
    groups = dict(zip(folds.ids, folds.groups.tolist(), strict=True))
    held_out = [loaded.held_out(fold) for fold in loaded.folds]
    tables = [saved_answers(saved, *one) for one in zip(loaded.folds, loaded.numbers, held_out, strict=True)]
    for place, (number, fold, examples) in enumerate(zip(loaded.numbers, loaded.folds, held_out, strict=True)):
        if len(tables[place]):
            print(f"fold {number}: {len(examples):,} questions asked before, in {path} (again=true asks anew)")
        else:
            print(f"fold {number}: asking {len(examples):,} held-out questions without and with passages", flush=True)
            table = answer_fold(loaded, fold, examples).assign(fold=number, fold_mark=fold.training_id)
            tables[place] = table.assign(group=[groups[example.id] for example in examples])
        with whole_file(path) as part:
            pd.concat([table for table in tables if len(table)], ignore_index=True).to_csv(part, index=False)
    return trial_of(read_rows(path))


def saved_answers(
    saved: pd.DataFrame, fold: FoldFolder, number: int | str, examples: Sequence[Example]
) -> pd.DataFrame:
    """The rows of gate.csv for this fold. Empty where it has none, or those of another training or other questions."""
    rows = saved[(saved["fold_mark"] == fold.training_id) & (saved["fold"] == number)]
    return rows if rows["id"].tolist() == [example.id for example in examples] else rows[:0]


def answer_fold(loaded: LoadedRun, fold: FoldFolder, examples: Sequence[Example]) -> pd.DataFrame:
    """One row per question: label, probabilities and seconds of both passes, found (passages or none), the device."""
    infer = loaded.parts.inference.restored(fold.state())
    if isinstance(infer, (ConfidenceGated, WithPassages)):  # every shipped configuration has the search outermost
        infer = infer.ask
    answerer = loaded.answerer(fold)
    with remembering(answerer, lambda probs: np.ones(len(probs), dtype=bool)):  # a gate does so for unsure questions
        first = infer(examples, answerer)
        found = loaded.search.find(examples)
        print(f"retrieval: {found.summary}")
        is_found = has_passages(found.examples)
        probs, seconds = first.probs.copy(), np.zeros(len(examples))
        if is_found.any():
            second = infer([one for one, has in zip(found.examples, is_found, strict=True) if has], answerer)
            probs[is_found], seconds[is_found] = second.probs, second.columns["seconds"]
    columns = {
        "id": first.ids,
        "label": [example.label for example in examples],
        "found": is_found,
        "first_seconds": first.columns["seconds"],
        "search_seconds": found.seconds,
        "second_seconds": seconds,
    }
    for name, values in zip(PASSES, (first.probs, probs), strict=True):
        columns |= {f"{name}_p_{label}": values[:, n] for n, label in enumerate(loaded.parts.task.classes)}
    return pd.DataFrame(columns).assign(**answerer.environment)


def read_rows(path: Path) -> pd.DataFrame:
    """Read gate.csv. Raises UserError where it is broken."""
    texts = {"id": str, "fold_mark": str}
    try:
        frame = pd.read_csv(path, dtype=texts, na_filter=False, float_precision="round_trip")
        trial_of(frame)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); again=true asks the questions again") from None
    return frame


def trial_of(frame: pd.DataFrame) -> Trial:
    """The rows of gate.csv as arrays."""
    names = [field.name for field in fields(Trial) if field.name not in PASSES]
    arrays = {name: frame[COLUMNS.get(name, name)].to_numpy() for name in names}
    probs = {name: frame.filter(regex=f"^{name}_p_").to_numpy(np.float64) for name in PASSES}
    columns: dict[str, Any] = arrays | probs
    return Trial(**columns | {"ids": tuple(frame["id"]), "found": frame["found"].to_numpy(bool)})
