"""Held-out questions asked without and with passages, fold by fold, and kept in gate.csv: asking is what takes time."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nexttoken.data.files import whole_file
from nexttoken.data.folds import load_folds
from nexttoken.errors import UserError
from nexttoken.inference import ConfidenceGated, Inference, WithPassages
from nexttoken.inference.gate_trial import Trial
from nexttoken.inference.once import remembering
from nexttoken.inference.passages import has_passages
from nexttoken.types import Example, LabelPredictions

if TYPE_CHECKING:
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.loaded import LoadedRun

FIRST, SECOND = "first_p_", "second_p_"  # and the class: the columns of probabilities
PROBABILITIES = {"first": FIRST, "second": SECOND}


def ask_both_ways(loaded: "LoadedRun", path: Path, again: bool = False) -> Trial:
    """Ask each fold's held-out questions both ways, or read them from `path` where that fold has been asked already.

    `path` is written after every fold, with what is known of the folds to come, so a killed command goes on where it
    was. Raises UserError for a broken file.
    """
    known = pd.DataFrame() if again or not path.exists() else read_rows(path)
    folds = dict(zip(loaded.numbers, loaded.folds, strict=True))
    held_out = {number: loaded.held_out(fold) for number, fold in folds.items()}
    answers = {number: answers_before(known, fold, number, held_out[number]) for number, fold in folds.items()}
    for number, fold in folds.items():
        examples = held_out[number]
        if len(answers[number]):
            print(f"fold {number}: {len(examples):,} questions asked before, in {path} (again=true asks anew)")
        else:
            print(f"fold {number}: asking {len(examples):,} held-out questions without and with passages", flush=True)
            asked = ask_fold(loaded, fold, examples)
            answers[number] = asked.assign(fold=number, fold_mark=fold_mark(fold))
        rows = pd.concat([rows for rows in answers.values() if len(rows)], ignore_index=True)
        save_rows(rows, loaded.folder.path / "folds.csv", path)
    return trial_of(read_rows(path))


def answers_before(known: pd.DataFrame, fold: "FoldFolder", number: int, examples: Sequence[Example]) -> pd.DataFrame:
    """The rows of gate.csv that answer this fold's questions, as it is trained now; none where that is not so."""
    if not len(known):
        return known
    kept = known[(known["fold_mark"] == fold_mark(fold)) & (known["fold"] == number)]
    return kept if kept["id"].tolist() == [example.id for example in examples] else kept[:0]


def fold_mark(fold: "FoldFolder") -> str:
    """Changes whenever the fold is trained again: its configuration and, with their seconds, its metrics."""
    saved = [(fold.path / name).read_bytes() for name in ("config.yaml", "metrics.json")]
    return hashlib.sha256(b"\0".join(saved)).hexdigest()[:16]


def ask_fold(loaded: "LoadedRun", fold: "FoldFolder", examples: Sequence[Example]) -> pd.DataFrame:
    """One row per question: label, both passes' probabilities and seconds, whether passages were found, the device."""
    ask = single_pass(loaded.parts.inference.restored(fold.state()))
    answerer = loaded.answerer(fold)
    with remembering(answerer, lambda probs: np.ones(len(probs), dtype=bool)):  # as the gate does of the unsure ones
        first = ask(examples, answerer)
        found = loaded.search.find(examples)
        print(f"retrieval: {found.summary}")
        hit = has_passages(found.examples)
        probs, seconds = first.probs.copy(), np.zeros(len(examples))
        if hit.any():
            second = ask([one for one, is_hit in zip(found.examples, hit, strict=True) if is_hit], answerer)
            probs[hit], seconds[hit] = second.probs, second.columns["seconds"]
    columns = {
        "id": first.ids,
        "label": [example.label for example in examples],
        "found": hit,
        "first_seconds": first.columns["seconds"],
        "search_seconds": found.seconds,
        "second_seconds": seconds,
    }
    classes = loaded.parts.task.classes
    for prefix, passed in ((FIRST, first), (SECOND, LabelPredictions(first.ids, probs))):
        columns |= dict(zip([f"{prefix}{name}" for name in classes], passed.probs.T, strict=True))
    return pd.DataFrame(columns).assign(**answerer.environment)


def single_pass(inference: Inference) -> Inference:
    """How one pass asks: without the search around it.

    A search is taken to be the outermost way of asking, as every shipped choice of inference has it: one inside another
    way would search in the first pass, too.
    """
    return inference.ask if isinstance(inference, (ConfidenceGated, WithPassages)) else inference


def save_rows(frame: pd.DataFrame, folds_path: Path, path: Path) -> None:
    """Write gate.csv, with each row's group from folds.csv."""
    folds = load_folds(folds_path)
    groups = dict(zip(folds.ids, folds.groups.tolist(), strict=True))
    with whole_file(path) as part:
        frame.assign(group=[groups[row] for row in frame["id"]]).to_csv(part, index=False)


def read_rows(path: Path) -> pd.DataFrame:
    """Read gate.csv. Raises UserError where it is none."""
    texts = {"id": str, "fold_mark": str}
    try:
        frame = pd.read_csv(path, dtype=texts, na_filter=False, float_precision="round_trip")
        trial_of(frame)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); again=true asks the questions again") from None
    return frame


def trial_of(frame: pd.DataFrame) -> Trial:
    """The rows of gate.csv as arrays."""
    singular = {"ids": "id", "folds": "fold", "groups": "group", "labels": "label"}
    arrays: dict[str, Any] = {}
    for field in fields(Trial):
        prefix = PROBABILITIES.get(field.name)
        columns = [name for name in frame if prefix and str(name).startswith(prefix)]
        arrays[field.name] = frame[columns if prefix else singular.get(field.name, field.name)].to_numpy()
    arrays["found"] = arrays["found"].astype(bool)
    probs = {name: arrays[name].astype(np.float64) for name in PROBABILITIES}
    return Trial(**{**arrays, **probs, "ids": tuple(arrays["ids"].tolist())})
