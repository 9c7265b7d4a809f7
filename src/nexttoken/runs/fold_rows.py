"""The examples of a fold: held out for its score, to choose its checkpoint, and to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nexttoken.build import Parts
from nexttoken.data.folds import Folds, values_of
from nexttoken.errors import UserError
from nexttoken.settings import ALL
from nexttoken.tasks.solved_examples import SolvedRow
from nexttoken.types import Example

NO_FOLD = -1  # no row is in it


@dataclass(frozen=True)
class Rows:
    """The examples of a fold: `train` for the weights, `dev` to choose a checkpoint, `held_out` for the score.

    `refits`: the weights that answer are trained on `train` and `dev`, once the dev rows have chosen how long. `solved`
    are those of `train` that were made of the rows' own solved examples.
    """

    train: list[Example]
    dev: list[Example]
    held_out: list[Example]
    refits: bool = False
    solved: tuple[SolvedRow, ...] = ()

    @property
    def learnt(self) -> list[Example]:
        """The examples behind the weights that answer."""
        return [*self.train, *self.dev] if self.refits else self.train

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples of each part."""
        solved = {"made of solved examples": len(self.solved)} if self.solved else {}
        return {
            "train": len(self.train) - len(self.solved),
            **solved,
            "dev": len(self.dev),
            "held out": len(self.held_out),
        }


@dataclass(frozen=True)
class FoldData:
    """All that a fold is trained on: the `examples` of all folds, their `folds`, and the `rows` of this one.

    `counted` are the counts of the transforms, by their names.
    """

    examples: list[Example]
    folds: Folds
    rows: Rows
    counted: dict[str, Any]


def labels_of(examples: Sequence[Example]) -> np.ndarray:
    """(N,) int64."""
    return np.array([example.label for example in examples], dtype=np.int64)


def strata(parts: Parts, examples: list[Example]) -> np.ndarray:
    """(N,) int64: every fold has an equal share of each value, which is the label; open answers have one value."""
    return labels_of(examples) if parts.task.classes else np.zeros(len(examples), dtype=np.int64)


def split(parts: Parts, examples: list[Example]) -> Folds:
    """Assign folds by the examples' texts and labels: the same for every model.

    Raises UserError for a fold that does not exist, where `split.column` decides how many there are.
    """
    texts = [parts.task.group_text(example) for example in examples]
    values = values_of(examples, parts.split.column) if parts.split.column else None
    labels = strata(parts, examples)
    folds = parts.split.folds([example.id for example in examples], texts, labels, values)
    if (fold := parts.settings.fold) != ALL and int(fold) >= folds.number:
        last = folds.number - 1
        raise UserError(
            f"fold={fold} does not exist: {parts.split.column} has {last + 1} values, so folds are 0 to {last}"
        )
    return folds


def choose_rows(parts: Parts, examples: list[Example], folds: Folds) -> Rows:
    """Split the examples into held-out, train and dev ones; `limit_rows` keeps the first of each.

    With fold=all none is held out, and the rows of `without_fold` are in no part. With `fit.refit` no row is withheld
    where a dev part would choose nothing: from one epoch that is scored at its end, or none.
    """
    settings, without = parts.settings, parts.settings.without_fold
    has_choice = settings.trainer.max_epochs > 1 or (settings.trainer.max_epochs == 1 and settings.fit.dev_every < 1)
    chooses = has_choice or not settings.fit.refit
    held_out = folds.folds == (NO_FOLD if parts.settings.fold == ALL else parts.settings.fold)
    training = np.flatnonzero(~held_out & (folds.folds != (NO_FOLD if without is None else without)))
    labels = strata(parts, examples)
    is_dev = np.zeros(len(training), dtype=bool)
    if chooses or parts.inference.fits_dev:
        is_dev = parts.split.dev(labels[training], folds.groups[training])
    chosen = (training[~is_dev], training[is_dev], np.flatnonzero(held_out))
    train, dev, held_out_rows = ([examples[index] for index in part[: settings.limit_rows]] for part in chosen)
    return Rows(train, dev, held_out_rows, bool(dev) and settings.fit.refit and has_choice)


def with_solved_examples(rows: Rows, task: Any, test: Sequence[Example], limit: int | None) -> Rows:
    """Add a training row for each solved example that the rows of `test` and the fold bring; `limit` keeps the first.

    Those of the dev and held-out rows are known when these rows are asked, as those of the test rows are. Raises
    UserError where there is none.
    """
    solved = task.solved.rows(rows.train, [*rows.dev, *rows.held_out], test)[:limit]
    if not solved:
        columns = ", ".join(task.solved.columns)
        raise UserError(
            f"test_examples=true finds no usable example in {columns}; correct task.examples, or leave it out"
        )
    return replace(rows, train=[*rows.train, *(row.example for row in solved)], solved=tuple(solved))
