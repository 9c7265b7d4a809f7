"""Leak-free folds: (nearly) equal texts form one group, and no group is split between folds."""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.data.files import whole_file
from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import UserError, first_five, nearest
from nexttoken.types import Example

_COLUMNS = ("id", "group", "fold")


@dataclass(frozen=True)
class Folds:
    """The group and the fold of each id: `groups` and `folds` are (N,) int64 in the order of `ids`."""

    ids: tuple[str, ...]
    groups: np.ndarray
    folds: np.ndarray

    @property
    def number(self) -> int:
        """The number of folds."""
        return int(self.folds.max(initial=-1)) + 1


@dataclass(frozen=True)
class GroupedStratified:
    """Splits rows into folds with equal shares of labels; all rows of a group are in the same fold.

    The folds depend on texts, labels and seed, not on the model. The share `dev_fraction` of a fold's training rows
    (0: none) is used to choose the checkpoint, so the held-out fold is scored only once.

    With a `column` all rows of one of its values are in the same fold, whatever their texts; then `num_folds` None is
    a fold for each value, in their order.
    """

    num_folds: int | None = 5
    seed: int = 0
    dev_fraction: float = 0.1
    column: str | None = None

    def __post_init__(self) -> None:
        if self.num_folds is None and not self.column:
            raise UserError("split.num_folds is null, expected a number; only split=by_column counts by itself")
        if self.num_folds is not None and self.num_folds < 2:
            raise UserError(f"split.num_folds is {self.num_folds}, expected at least 2")
        if not 0 <= self.dev_fraction <= 0.5:
            raise UserError(f"split.dev_fraction is {self.dev_fraction}, expected 0 (no dev part) to 0.5")

    def folds(
        self, ids: Sequence[str], texts: Sequence[str], labels: np.ndarray, values: Sequence[str] | None = None
    ) -> Folds:
        """Group the rows by their texts and assign each to a fold, by its group or by its value of `column`."""
        groups = group_ids(texts)
        return Folds(tuple(ids), groups, self.assign(labels, groups) if values is None else self._by(values, labels))

    def assign(self, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Fold per row, (N,) int64, independent of the rows' order. Raises UserError if a fold would be empty."""
        return _stratify(np.asarray(labels), np.asarray(groups), self.num_folds or 0, self.seed)

    def _by(self, values: Sequence[str], labels: np.ndarray) -> np.ndarray:
        distinct, numbers = np.unique(np.array(values, dtype=object), return_inverse=True)
        num_folds = self.num_folds or len(distinct)
        if not 2 <= num_folds <= len(distinct):
            found = f"split.column={self.column} has {len(distinct)} values in the training rows"
            raise UserError(
                f"{found}, too few for {max(num_folds, 2)} folds; lower split.num_folds, or use split=grouped"
            )
        return numbers if num_folds == len(distinct) else _stratify(labels, numbers, num_folds, self.seed)

    def dev(self, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Mask (N,) of the development part: one of round(1 / dev_fraction) grouped, stratified parts of the rows."""
        if self.dev_fraction == 0:
            return np.zeros(len(labels), dtype=bool)
        return _stratify(np.asarray(labels), np.asarray(groups), round(1 / self.dev_fraction), self.seed) == 0


def values_of(examples: Sequence[Example], column: str) -> list[str]:
    """Each example's text in a field or tag. Raises UserError where one has neither of this name."""
    for example in examples:
        if column not in example.fields and column not in example.tags:
            fix = nearest(column, [*example.fields, *example.tags])
            raise UserError(f"split.column={column} is no field and no tag of row {example.id}; {fix}")
    return ["\n".join(e.fields[column]) if column in e.fields else e.tags[column] for e in examples]


def _stratify(labels: np.ndarray, groups: np.ndarray, num_parts: int, seed: int) -> np.ndarray:
    """The part (N,) of each row; by groups alone where no label has a row for every part."""
    from sklearn.model_selection import StratifiedGroupKFold

    num_groups = len(np.unique(groups))
    largest_class = np.unique(labels, return_counts=True)[1].max(initial=0)
    if num_groups < num_parts:
        raise UserError(
            f"{num_parts} parts need as many groups of different text, found {num_groups} groups; lower split.num_folds"
            " (or raise split.dev_fraction), or add data"
        )
    if largest_class < num_parts:
        labels = np.zeros_like(labels)
    order = np.lexsort((labels, groups))  # makes the result independent of the rows' order
    splitter = StratifiedGroupKFold(n_splits=num_parts, shuffle=True, random_state=seed)
    parts = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # few questions have the last option
        for part, (_, held_out) in enumerate(splitter.split(order, labels[order], groups[order])):
            parts[order[held_out]] = part
    return parts


def save_folds(folds: Folds, path: Path) -> None:
    """Write `id,group,fold`, or compare with an existing file. Raises UserError if the assignment changed."""
    if path.exists():
        _require_same(load_folds(path), folds, path)
        return
    with whole_file(path) as part, part.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        rows.writerows(zip(folds.ids, folds.groups.tolist(), folds.folds.tolist(), strict=True))


def load_folds(path: Path) -> Folds:
    """Read the file of `save_folds`. Raises UserError if it is not a table of folds."""
    try:
        with path.open(encoding="utf-8", errors="surrogatepass", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != _COLUMNS:
            raise ValueError(f"columns {header}")
        numbers = np.array([(int(group), int(fold)) for _, group, fold in rows], dtype=np.int64).reshape(-1, 2)
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is not a table of folds ({error}); delete it and run again") from error
    return Folds(tuple(id for id, _, _ in rows), numbers[:, 0], numbers[:, 1])


def _require_same(saved: Folds, fresh: Folds, path: Path) -> None:
    old, new = (dict(zip(one.ids, zip(one.groups, one.folds, strict=True), strict=True)) for one in (saved, fresh))
    if changed := sorted(id for id in old.keys() | new.keys() if old.get(id) != new.get(id)):
        raise UserError(
            f"{path} assigns {len(changed)} ids to other folds than the current data and split: {first_five(changed)}; "
            "restore the data and the split, or start a run with another name"
        )
