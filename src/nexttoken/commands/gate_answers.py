"""The answers of a run's folds to their held-out rows, without and with passages or of both orders, in gate.csv."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nexttoken.data.files import whole_file
from nexttoken.data.folds import load_folds
from nexttoken.data.whole_files import remove
from nexttoken.errors import UserError, one_line
from nexttoken.inference import ConfidenceGated, SwapAveraged, WithPassages
from nexttoken.inference.gate import Decision, Trial
from nexttoken.inference.once import remembering
from nexttoken.inference.passages import has_passages
from nexttoken.runs.asked import claim, save_answers
from nexttoken.runs.asking import Asking
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.transforms.orders import swap_sides
from nexttoken.types import Example, LabelPredictions

# Without and with passages, or as it is and both orders averaged; their probabilities are the columns <pass>_p_<class>.
PASSES = ("first", "second")
WAYS = ("without and with passages", "in both orders")
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
            print(f"fold {number}: asking {len(examples):,} held-out rows {WAYS[asks_swapped(loaded)]}", flush=True)
            table = answer_fold(loaded, fold, examples).assign(fold=number, fold_mark=fold.training_id)
            tables[place] = table.assign(group=[groups[example.id] for example in examples])
        with whole_file(path) as part:
            pd.concat([table for table in tables if len(table)], ignore_index=True).to_csv(part, index=False)
    task: Any = loaded.parts.task
    return trial_of(read_rows(path), by_loss=task.metrics[0].name == "log_loss")


def saved_answers(
    saved: pd.DataFrame, fold: FoldFolder, number: int | str, examples: Sequence[Example]
) -> pd.DataFrame:
    """The rows of gate.csv for this fold. Empty where it has none, or those of another training or other questions."""
    rows = saved[(saved["fold_mark"] == fold.training_id) & (saved["fold"] == number)]
    return rows if rows["id"].tolist() == [example.id for example in examples] else rows[:0]


def answer_fold(loaded: LoadedRun, fold: FoldFolder, examples: Sequence[Example]) -> pd.DataFrame:
    """One row per question: label, probabilities, seconds and tokens of both passes, found or not, the device."""
    answerer, both = loaded.answerer(fold), in_both_orders if asks_swapped(loaded) else with_and_without_passages
    passes = both(loaded, fold, examples, answerer)
    columns: dict[str, Any] = {
        "id": [example.id for example in examples],
        "label": [example.label for example in examples],
        **{key: value for key, value in passes.items() if key not in PASSES},
    }
    for name in PASSES:
        columns |= {f"{name}_p_{label}": passes[name][:, n] for n, label in enumerate(loaded.parts.task.classes)}
    return pd.DataFrame(columns).assign(**answerer.environment)


def asks_swapped(loaded: LoadedRun) -> bool:
    """True where the second pass is the swapped pair: the task's rows are pairs of answers."""
    return "pairs" in getattr(loaded.parts.task, "offers", ())


def in_both_orders(
    loaded: LoadedRun, fold: FoldFolder, examples: Sequence[Example], answerer: Any
) -> dict[str, np.ndarray]:
    """The passes as they are and averaged with the swapped pair, as columns of a Trial."""
    swap = SwapAveraged().for_task(loaded.parts.task)
    first = answerer(examples)
    tokens = tokens_since(answerer, 0, examples)
    turned, number = [swap_sides(example, swap.swap) for example in examples], len(answerer.prompts)
    second = answerer(turned)
    return {
        "first": first.probs,
        "second": swap.average(first.probs, second.probs),
        "found": np.ones(len(examples), dtype=bool),
        "first_seconds": first.columns["seconds"],
        "search_seconds": np.zeros(len(examples)),
        "second_seconds": second.columns["seconds"],
        "first_tokens": tokens,
        "second_tokens": tokens_since(answerer, number, examples),
    }


def with_and_without_passages(
    loaded: LoadedRun, fold: FoldFolder, examples: Sequence[Example], answerer: Any
) -> dict[str, np.ndarray]:
    """The passes without and with passages, as columns of a Trial."""
    infer = loaded.parts.inference.restored(fold.state())
    if isinstance(infer, (ConfidenceGated, WithPassages)):  # every shipped configuration has the search outermost
        infer = infer.ask
    with remembering(answerer, lambda probs: np.ones(len(probs), dtype=bool)):  # a gate does so for unsure questions
        first = infer(examples, answerer)
        tokens, number = tokens_since(answerer, 0, examples), len(answerer.prompts)
        found = loaded.search.find(examples)
        print(f"retrieval: {found.summary}")
        is_found = has_passages(found.examples)
        probs, seconds = first.probs.copy(), np.zeros(len(examples))
        if is_found.any():
            second = infer([one for one, has in zip(found.examples, is_found, strict=True) if has], answerer)
            probs[is_found], seconds[is_found] = second.probs, second.columns["seconds"]
    return {
        "first": first.probs,
        "second": probs,
        "found": is_found,
        "first_seconds": first.columns["seconds"],
        "search_seconds": found.seconds,
        "second_seconds": seconds,
        "first_tokens": tokens,
        "second_tokens": tokens_since(answerer, number, examples),
    }


def tokens_since(answerer: Any, start: int, examples: Sequence[Example]) -> np.ndarray:
    """The tokens (N,) of each example's prompts from number `start` on, that went through the model."""
    from nexttoken.engine.label_answerer import num_tokens  # needs torch

    of_row: Counter[str] = Counter()
    for prompt in answerer.prompts[start:]:
        of_row[prompt.id] += num_tokens(prompt)
    return np.array([of_row[example.id] for example in examples])


def save_decided(loaded: LoadedRun, trial: Trial, decision: Decision) -> str:
    """Save the answers as each fold's rows get them by the gate of the other folds; return a line with their folder.

    They are the out-of-fold rows of the way in which predict.py asks with gate.json. Those of an earlier gate go.
    """
    asking = Asking.of(loaded)
    if not asking.has_gate:
        return "gate.json holds the run's own thresholds"
    for way in loaded.folder.ways:
        if way.path.name.startswith("gate") and way != asking.folder:
            remove(way.path)
    for fold in loaded.folds:
        rows = trial.folds == fold.number
        part, searched, taken = trial.pick(rows), decision.searched[rows], decision.taken[rows]
        again = searched & part.found
        seconds = part.first_seconds + searched * part.search_seconds + again * part.second_seconds
        tokens = part.first_tokens + again * part.second_tokens
        columns = {"seconds": seconds, "asked_again": again, "second_taken": taken}
        probs = np.where(taken[:, None], part.second, part.first)
        measured = {"num_prompt_tokens": int(tokens.sum()), "seconds": float(seconds.sum())}
        claim(asking, fold)
        save_answers(asking, fold, LabelPredictions(part.ids, probs, columns), measured)
    return f"out-of-fold answers and scores: {asking.folder.path}"


def read_rows(path: Path) -> pd.DataFrame:
    """Read gate.csv. Raises UserError where it is broken."""
    texts = {"id": str, "fold_mark": str}
    try:
        frame = pd.read_csv(path, dtype=texts, na_filter=False, float_precision="round_trip")
        trial_of(frame)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); again=true asks the questions again") from None
    return frame


def trial_of(frame: pd.DataFrame, by_loss: bool = False) -> Trial:
    """The rows of gate.csv as arrays."""
    names = [field.name for field in fields(Trial) if field.name not in (*PASSES, "by_loss")]
    arrays = {name: frame[COLUMNS.get(name, name)].to_numpy() for name in names}
    probs = {name: frame.filter(regex=f"^{name}_p_").to_numpy(np.float64) for name in PASSES}
    columns: dict[str, Any] = arrays | probs
    texts = {"ids": tuple(frame["id"]), "found": frame["found"].to_numpy(bool)}
    return Trial(**columns | texts, by_loss=by_loss)
