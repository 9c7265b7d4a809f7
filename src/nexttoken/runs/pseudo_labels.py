"""Pseudo-labels: rows without a label become training rows, with a run's probabilities for them as soft labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.build import Parts, fit_to_task
from nexttoken.data.csv_tables import numbers, read_columns
from nexttoken.data.folds import values_of
from nexttoken.data.near_duplicates import group_ids
from nexttoken.data.targets import make
from nexttoken.errors import UserError, first_five
from nexttoken.runs.fold_rows import Rows
from nexttoken.tasks.submission import check_probs
from nexttoken.tasks.test_rows import without_remarks
from nexttoken.transforms import apply_transforms
from nexttoken.transforms.demonstrations import AddDemonstrations
from nexttoken.types import Example

KEY = "pseudo_labels"  # its name among the transforms of the training rows


@dataclass(frozen=True)
class PseudoLabels:
    """A transform that adds rows to the training rows."""

    rows: Sequence[Example]

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [*examples, *self.rows]


def with_pseudo_labels(parts: Parts, rows: Rows, examples: Sequence[Example]) -> Parts:
    """The parts with a transform that adds the test rows with the answers in `pseudo_labels.file`, if it is given.

    `examples` are all training rows, of all folds. Rows like a held-out or a dev row (of its group, or with its value
    of `split.column`) are left out. Raises UserError for a file that does not fit the rows and classes, for open
    answers, and where none is left.
    """
    given = parts.settings.pseudo_labels
    if given.file is None:
        return parts
    if not parts.task.classes or not parts.settings.trainer.max_epochs:
        raise UserError("pseudo_labels=... is for a training on classes; leave it out here")
    shows = parts.inference.shows_pool or any(isinstance(t, AddDemonstrations) for t in parts.train_transforms.values())
    if shows:
        raise UserError("pseudo_labels=... would show guessed answers as solved examples; leave out the demonstrations")
    found = _answered_rows(parts)
    guarded = [*rows.held_out, *rows.dev]
    kept = [row for row, is_alike in zip(found, _alike(parts, found, guarded, examples), strict=True) if not is_alike]
    if not kept:
        raise UserError(f"pseudo_labels={given.file}: all its rows are like held-out or dev rows; leave it out")
    left_out = f"; {len(found) - len(kept):,} like held-out or dev rows are left out" * (len(kept) < len(found))
    print(f"{'pseudo':<9} {given.file}: {len(kept):,} rows with its probabilities as labels{left_out}")
    added = PseudoLabels(kept[: parts.settings.limit_rows])
    return replace(parts, train_transforms={KEY: added, **parts.train_transforms})


def _answered_rows(parts: Parts) -> list[Example]:
    """The rows of the test file that pseudo_labels.file answers, under ids that no training row has."""
    given, task = parts.settings.pseudo_labels, parts.task
    if given.input_dir:
        task = fit_to_task(make({**parts.settings.task, "input_dir": given.input_dir}, "task"), task)
    with without_remarks():
        examples = {one.id: one for one in apply_transforms(task.read("test"), parts.transforms)}
    path, name, classes = Path(str(given.file)), str(getattr(task, "id", None) or "id"), task.classes
    table = read_columns(path, [name, *classes], "give a submission of a run with a column for each class")
    ids, probs = table[name], numbers(table, classes)
    check_probs(str(path), ids, probs, classes)
    if unknown := [row_id for row_id in ids if row_id not in examples]:
        raise UserError(
            f"{path} answers {len(unknown)} ids that the test file of {given.input_dir or parts.settings.input_dir} has"
            f" not ({first_five(unknown)}); give the folder that it was predicted from: pseudo_labels.input_dir=..."
        )
    return [_labelled(examples[row_id], row) for row_id, row in zip(ids, probs, strict=True)]


def _labelled(example: Example, probs: np.ndarray) -> Example:
    votes = tuple((probs / probs.sum()).tolist())
    return replace(example, id=f"pseudo {example.id}", label=int(probs.argmax()), votes=votes)


def _alike(parts: Parts, found: Sequence[Example], guarded: Sequence[Example], examples: Sequence[Example]) -> Any:
    """Mask (N,) of the found rows that share a group or the split's column with a guarded one."""
    everything = [*examples, *found]
    groups = group_ids([parts.task.group_text(example) for example in everything])
    is_guarded = np.isin([id(example) for example in everything], [id(example) for example in guarded])
    is_alike = np.isin(groups, groups[is_guarded])
    if column := parts.split.column:
        values = np.array(values_of(everything, column), dtype=object)
        is_alike |= np.isin(values.astype(str), values[is_guarded].astype(str))
    return is_alike[len(examples) :]
