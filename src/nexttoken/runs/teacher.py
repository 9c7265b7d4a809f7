"""Soft labels by a teacher, a finished run: each training row gets the answer of the fold that held the row out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.build import Parts
from nexttoken.data.csv_tables import read_columns, write_csv
from nexttoken.data.files import RETRAIN, whole_file
from nexttoken.data.folds import Folds
from nexttoken.errors import UserError, first_five
from nexttoken.metrics.probabilities import log_loss
from nexttoken.metrics.scaling import soften
from nexttoken.runs.calibration import Calibration, read_calibration
from nexttoken.runs.fold_rows import Rows
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.out_of_fold import Answered, RowKey, answers_out_of_fold, row_key
from nexttoken.runs.pseudo_labels import PseudoLabels
from nexttoken.settings import TeacherSettings
from nexttoken.types import Example

KEY = "teacher"  # its name among the transforms of the training rows
FILE = "soft_labels.csv"  # in the fold's folder


@dataclass(frozen=True)
class Teacher:
    """A transform that gives training rows soft labels as votes; rows without an answer keep their own label."""

    settings: TeacherSettings
    answers: Mapping[RowKey, Answered]

    def __call__(self, examples: Sequence[Example]) -> list[Example]:
        return [self._taught(example) for example in examples]

    def _taught(self, example: Example) -> Example:
        if (answer := self.answers.get(row_key(example))) is None:  # made of a row's solved examples
            return example
        own = np.array(example.votes or np.eye(len(answer.probs))[answer.label])
        soft = soften(answer.probs[None], self.settings.temperature)[0]
        share = self.settings.weight
        return replace(example, votes=tuple((share * soft / soft.sum() + (1 - share) * own).tolist()))

    def __str__(self) -> str:
        labels = np.array([answer.label for answer in self.answers.values()])
        probs = np.array([answer.probs for answer in self.answers.values()])
        right = (probs.argmax(axis=1) == labels).mean()
        said = f"{len(labels):,} rows out of fold, log loss {log_loss(probs, labels):.4f}, {right:.1%} right"
        return (
            f"{self.settings.run}: {said}; temperature {self.settings.temperature:g}, weight {self.settings.weight:g}"
        )


def with_teacher(parts: Parts, rows: Rows, folds: Folds) -> Parts:
    """The parts with a first transform of the training rows that gives soft labels, if `teacher.run` names a run.

    No row's teacher has learnt the row or one of its group: the run's folds must be those of `folds`, which never part
    a group. Raises UserError for other folds, rows or classes, for answers that are not out of fold, and for a task of
    open answers.
    """
    given = parts.settings.teacher
    if given.run is None:
        return parts
    if not parts.task.classes:
        raise UserError("teacher=... gives shares of classes, and the task's answers are open texts; leave it out")
    if not parts.settings.trainer.max_epochs:
        raise UserError("teacher=... teaches a training, and trainer.max_epochs=0 has none; leave one of them out")
    path = Path(given.run.replace("%fold", str(parts.settings.fold)))
    if path.resolve() == RunFolder.of(parts).path.resolve():
        raise UserError(f"teacher={path} is the run to be trained; give the student another name=...")
    solved = {id(row.example) for row in rows.solved}
    learnt = [example for example in rows.learnt if id(example) not in solved]
    answers = _answers(RunFolder(path), parts.task)
    _refuse_others(path, learnt, answers, dict(zip(folds.ids, folds.folds.tolist(), strict=True)))
    taught = {row_key(example): answers[row_key(example)] for example in learnt}
    teacher = Teacher(given.model_copy(update={"run": str(path)}), taught)
    print(f"{'teacher':<9} {teacher}")
    return replace(parts, train_transforms={KEY: teacher, **parts.train_transforms})


def _answers(run: RunFolder, task: Any) -> dict[RowKey, Answered]:
    if run.has_only_final:
        raise UserError(
            f"teacher={run.path} is a final model, which has learnt every row; train its folds: python train.py -m"
            " fold=0,1,2,3,4 ..."
        )
    for fold in run.finished_folds():
        if (other := fold.metrics().get("task")) != task.name:
            raise UserError(f"teacher={run.path} answers the task {other}; name a run of {task.name}")
    answers = answers_out_of_fold(run, task.classes, KEY)
    found = read_calibration(run, len(task.classes))
    return _calibrated(answers, found) if found else answers


def _calibrated(answers: Mapping[RowKey, Answered], calibration: Calibration) -> dict[RowKey, Answered]:
    """The answers as predict.py would give them: each fold's by a scaling that has not seen its rows."""
    probs = np.array([answer.probs for answer in answers.values()])
    folds = np.array([answer.fold for answer in answers.values()])
    for number in np.unique(folds):
        probs[folds == number] = calibration.by_fold[int(number)](probs[folds == number])
    pairs = zip(answers.items(), probs, strict=True)
    return {key: replace(answer, probs=own) for (key, answer), own in pairs}


def _refuse_others(
    path: Path, learnt: Sequence[Example], answers: Mapping[RowKey, Answered], folds: Mapping[str, int]
) -> None:
    """Raise UserError where a training row has no answer, another label, or was held out in another fold."""
    found = [(example, answers.get(row_key(example))) for example in learnt]
    if missing := [example.id for example, answer in found if answer is None]:
        raise UserError(
            f"teacher={path} has no out-of-fold answer for {len(missing)} of {len(learnt)} training rows"
            f" ({first_five(missing)}); train its other folds first, on the same rows"
        )
    if other := [example.id for example, answer in found if answer and answer.label != example.label]:
        raise UserError(f"teacher={path} was scored on other rows: {first_five(other)} have other labels there")
    if moved := [example.id for example, answer in found if answer and answer.fold != folds[example.id]]:
        raise UserError(
            f"teacher={path} has other folds: {len(moved)} training rows ({first_five(moved)}) were held out in others"
            " than here, so that it may have learnt near-duplicates of them; train it with the same split"
        )


def save_soft_labels(fold: FoldFolder, parts: Parts, rows: Rows) -> None:
    """Write soft_labels.csv, if a teacher or pseudo-labels are given: a row's id, and the target's share of each class.

    Raises UserError where an interrupted training of this fold has learnt others: the teacher was trained again.
    """
    given = [one for one in parts.train_transforms.values() if isinstance(one, Teacher | PseudoLabels)]
    if not given:
        return
    examples = rows.learnt
    for transform in given:
        examples = transform(examples)
    table = [(example.id, *map(repr, example.votes)) for example in examples if example.votes]
    path = fold.path / FILE
    if path.exists() and list(zip(*read_columns(path, ["id"]).values(), strict=True)) != table:
        raise UserError(f"{path} has other soft labels than are given now, by a teacher that was changed; {RETRAIN}")
    with whole_file(path) as part:
        write_csv([("id", *parts.task.classes), *table], part)
