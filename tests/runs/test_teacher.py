"""Soft labels by a teacher: never from a model that has learnt the row or its group, and mixed as stated."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.build import prepare
from nexttoken.commands.entry import compose
from nexttoken.data.folds import Folds
from nexttoken.errors import UserError
from nexttoken.metrics.scaling import Scaling
from nexttoken.runs.calibration import Calibration, save_calibration
from nexttoken.runs.fold_rows import Rows
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.out_of_fold import Answered
from nexttoken.runs.teacher import Teacher, with_teacher
from nexttoken.settings import TeacherSettings
from nexttoken.transforms.orders import BothOrders, reorder
from nexttoken.types import OPTIONS, Example
from support.finished_runs import unseal
from support.training import composed, predict, train

TWO_FOLDS = ("split.num_folds=2", "limit_rows=null", "logger=none")


def small_rows(folder: Path, flip: str | None = None) -> str:
    """A quarter of the sample's training rows; the row `flip` has another winner. Its genre decides its fold."""
    sample = Path(__file__).resolve().parents[2] / "input" / "sample-preferences"
    folder.mkdir()
    for name in ("test.csv", "sample_submission.csv"):
        shutil.copy(sample / name, folder)
    rows = pd.read_csv(sample / "train.csv", dtype=str, keep_default_na=False).head(40)
    if flip:
        winners = [name for name in rows if name.startswith("winner_")]
        turned = rows.loc[rows["id"] == flip, winners].to_numpy()[:, [1, 2, 0]]
        rows.loc[rows["id"] == flip, winners] = turned
    rows.to_csv(folder / "train.csv", index=False)
    return f"input_dir={folder}"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """Two folds of a run on 40 rows."""
    folder = tmp_path_factory.mktemp("teacher")
    data = small_rows(folder / "rows")
    for fold in (0, 1):
        train(folder, f"fold={fold}", data, *TWO_FOLDS)
    return folder / "lmsys" / "tiny"


def data_of(teacher: Path) -> str:
    return f"input_dir={teacher.parents[1] / 'rows'}"


def student(teacher: Path, folder: Path, *overrides: str) -> Path:
    train(folder, f"teacher.run={teacher}", "fold=0", data_of(teacher), *TWO_FOLDS, "name=student", *overrides)
    return folder / "lmsys" / "student" / "fold0"


def test_soft_labels_are_a_mixture_of_the_softened_answer_and_the_label():
    answers = {("", "a"): Answered(np.array([0.8, 0.2, 0.0]), 1, 0)}
    row = Example("a", {}, label=1)
    soft = np.array([0.8**0.5, 0.2**0.5, 0.0]) / (0.8**0.5 + 0.2**0.5)
    taught, other = Teacher(TeacherSettings(run="x", temperature=2, weight=0.75), answers)([row, Example("b", {}, 0)])
    assert taught.votes == pytest.approx(0.75 * soft + [0, 0.25, 0])
    assert other.votes == ()
    (whole,) = Teacher(TeacherSettings(run="x", weight=1), answers)([row])
    assert whole.votes == pytest.approx([0.8, 0.2, 0.0])
    (both,) = Teacher(TeacherSettings(run="x", weight=0.5), answers)([replace(row, votes=(0.5, 0.0, 0.5))])
    assert both.votes == pytest.approx([0.65, 0.1, 0.25])  # shares of the data's own voters count as the label does
    assert (taught.label, whole.label) == (1, 1)


def test_soft_labels_go_with_the_order_of_answers_and_options():
    pair = Example("a", {"response_a": ("x",), "response_b": ("y",)}, 0, votes=(0.7, 0.2, 0.1))
    assert [one.votes for one in BothOrders()([pair])] == [(0.7, 0.2, 0.1), (0.2, 0.7, 0.1)]
    question = Example("q", {OPTIONS: ("x", "y", "z")}, 0, votes=(0.7, 0.2, 0.1))
    assert reorder(question, (2, 0, 1)).votes == (0.1, 0.7, 0.2)


def test_a_student_learns_the_answers_of_the_fold_that_held_the_row_out(teacher, tmp_path, capsys):
    fold = student(teacher, tmp_path, "teacher.weight=1", "train_transforms=both_orders")
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("teacher "))
    assert f"{teacher}: 20 rows out of fold, log loss " in said
    taught = pd.read_csv(fold / "soft_labels.csv", dtype={"id": str}).set_index("id")
    out_of_fold = pd.read_csv(teacher / "fold1" / "oof.csv", dtype={"id": str}).set_index("id")
    assert set(taught.index) == set(out_of_fold.index)  # the training rows of fold 0 are those that fold 1 held out
    columns = list(taught)
    assert len(columns) == 3
    np.testing.assert_allclose(taught, out_of_fold.loc[taught.index, columns], atol=1e-12)
    assert json.loads((fold / "transforms.json").read_text())["teacher"] == {"num_before": 20, "num_after": 20}
    assert len(predict(tmp_path, f"run={fold.parent}"))


def test_a_calibrated_teacher_teaches_its_calibrated_answers(teacher, tmp_path):
    run = tmp_path / "lmsys" / "calibrated"
    shutil.copytree(teacher, run)
    scaling = {number: Scaling("temperature", np.eye(3) / (1 + number), np.zeros(3)) for number in (0, 1)}
    trainings = {number: FoldFolder(run / f"fold{number}").training_id for number in (0, 1)}
    save_calibration(Calibration(scaling[0], scaling, trainings, {}), {}, run)
    train(tmp_path, f"teacher.run={run}", "teacher.weight=1", "fold=0", data_of(teacher), *TWO_FOLDS, "name=student")
    taught = pd.read_csv(tmp_path / "lmsys/student/fold0/soft_labels.csv", dtype={"id": str}).set_index("id")
    held_out = pd.read_csv(run / "fold1" / "oof.csv", dtype={"id": str}).set_index("id").loc[taught.index, [*taught]]
    np.testing.assert_allclose(taught, held_out**0.5 / (held_out**0.5).to_numpy().sum(axis=1)[:, None], atol=1e-12)


def test_with_another_target_other_weights_are_learnt(teacher, tmp_path):
    losses = {
        weight: json.loads(
            (student(teacher, tmp_path / weight, f"teacher.weight={weight}") / "metrics.json").read_text()
        )
        for weight in ("1e-9", "1")
    }
    train(tmp_path / "alone", "fold=0", data_of(teacher), *TWO_FOLDS)
    alone = json.loads((tmp_path / "alone/lmsys/tiny/fold0/metrics.json").read_text())
    assert losses["1e-9"]["log_loss"] == pytest.approx(alone["log_loss"], abs=1e-6)
    assert abs(losses["1"]["log_loss"] - alone["log_loss"]) > 1e-4


def test_no_label_of_a_row_or_its_group_reaches_its_own_soft_label(teacher, tmp_path):
    """The whole way: a teacher on data where one row has another label gives this row the very same soft label."""
    names = pd.read_csv(teacher / "folds.csv", dtype={"id": str})
    flipped = names.loc[names["fold"] == 1, "id"].iloc[0]
    data = small_rows(tmp_path / "rows", flip=flipped)
    folds_by_id = dict(zip(names["id"], names["fold"], strict=True))
    again = tmp_path / "lmsys" / "tiny"
    with pytest.MonkeyPatch.context() as patch:  # the split is stratified by labels; the question is not about it
        patch.setattr("nexttoken.pipeline.split", lambda parts, examples: folds_of(examples, folds_by_id))
        for fold in (0, 1):
            train(tmp_path, f"fold={fold}", data, *TWO_FOLDS)
        taught = [taught_rows(run, folds_by_id, where) for run, where in ((teacher, data_of(teacher)), (again, data))]
    mates = [row for row in taught[0] if folds_by_id[row] == 1]
    assert flipped in mates
    assert all(taught[0][row] == taught[1][row] for row in mates)
    others = [row for row in taught[0] if folds_by_id[row] == 0]
    assert any(taught[0][row] != taught[1][row] for row in others)  # so that the comparison can fail


def folds_of(examples, folds_by_id: dict[str, int]) -> Folds:
    folds = np.array([folds_by_id[example.id] for example in examples])
    return Folds(tuple(example.id for example in examples), np.arange(len(examples)), folds)


def taught_rows(run: Path, folds_by_id: dict[str, int], data: str) -> dict[str, tuple[float, ...]]:
    """Every row's soft label by a teacher alone, for a final model on all rows."""
    parts, _ = prepare(
        composed("train", data, f"teacher.run={run}", "teacher.weight=1", "fold=all", "name=student"), []
    )
    examples = parts.task.read("train")
    parts = with_teacher(parts, Rows(examples, [], []), folds_of(examples, folds_by_id))
    return {example.id: example.votes for example in parts.train_transforms["teacher"](examples)}


def test_an_interrupted_student_refuses_a_teacher_that_was_trained_again(teacher, tmp_path):
    fold = student(teacher, tmp_path, "teacher.weight=1")
    (fold / "metrics.json").unlink()
    path = fold / "soft_labels.csv"
    student(teacher, tmp_path, "teacher.weight=1")  # the same teacher: it goes on
    (fold / "metrics.json").unlink()
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(UserError, match=r"soft_labels\.csv has other soft labels than are given now"):
        student(teacher, tmp_path, "teacher.weight=1")


def copied(teacher: Path, folder: Path) -> Path:
    shutil.copytree(teacher, folder / "lmsys" / "other")
    (folder / "rows").symlink_to(teacher.parents[1] / "rows")
    for fold in (0, 1):
        unseal(folder / "lmsys" / "other" / f"fold{fold}")
    return folder / "lmsys" / "other"


def altered(teacher: Path, folder: Path, **columns: int) -> Path:
    """A copy of the teacher whose fold 1 says other values in a column of its first row."""
    run = copied(teacher, folder)
    path = run / "fold1" / "oof.csv"
    table = pd.read_csv(path, dtype={"id": str})
    for name, value in columns.items():
        table.loc[0, name] = value if value >= 0 else (table.loc[0, name] + 1) % 3
    table.to_csv(path, index=False)
    return run


def test_a_teacher_that_may_have_learnt_a_row_is_refused(teacher, tmp_path):
    with pytest.raises(UserError, match=r"has other folds: 1 training rows \(\S+\) were held out in others than here"):
        student(altered(teacher, tmp_path / "a", fold=0), tmp_path)
    with pytest.raises(UserError, match=r"has other folds: \d+ training rows"):
        student(teacher, tmp_path, "split.seed=1", "name=other-split")
    run = copied(teacher, tmp_path / "b")
    (run / "fold1").rename(run / "all")
    with pytest.raises(UserError, match=r"has no out-of-fold answer for 20 of 20 training rows .* train its other fo"):
        student(run, tmp_path)
    shutil.rmtree(run / "fold0")
    metrics = run / "all" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"fold": "all"}))
    with pytest.raises(UserError, match="is a final model, which has learnt every row; train its folds"):
        student(run, tmp_path)
    assert not list((tmp_path / "lmsys").glob("*/fold0/metrics.json"))


def test_a_teacher_of_other_rows_classes_or_tasks_is_refused(teacher, tmp_path):
    with pytest.raises(UserError, match=r"was scored on other rows: \S+ have other labels there"):
        student(altered(teacher, tmp_path / "a", label=-1), tmp_path)
    run = copied(teacher, tmp_path / "b")
    path = run / "fold1" / "oof.csv"
    path.write_text(path.read_text().replace("winner_tie", "winner_none"))
    with pytest.raises(UserError, match="was trained on other classes; name a run of this task"):
        student(run, tmp_path)
    with pytest.raises(UserError, match="nowhere has no finished fold; train one first"):
        student(tmp_path / "nowhere", tmp_path, data_of(teacher))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epochs=0"], "teacher=... teaches a training, and trainer.max_epochs=0 has none"),
        (["name=tiny", "output_dir={folder}"], "is the run to be trained; give the student another name"),
        (["teacher.temperature=0"], "teacher.temperature=0 is not accepted: input should be greater than 0"),
        (["teacher.weight=1.5"], "teacher.weight=1.5 is not accepted"),
    ],
)
def test_what_makes_no_sense_is_refused(teacher, tmp_path, overrides, message):
    places = [override.format(folder=teacher.parents[1]) for override in overrides]
    with pytest.raises(UserError, match=message):
        student(teacher, tmp_path, *places, *["overwrite=true"] * ("name=tiny" in overrides))


def test_open_answers_have_no_teacher(tmp_path):
    folder = Path(__file__).resolve().parents[2] / "input" / "sample-instruct"
    with pytest.raises(UserError, match=r"teacher=\.\.\. gives shares of classes, and the task's answers are open"):
        train(tmp_path, "task=instruct", f"input_dir={folder}", "teacher.run=x", "fold=0")


def test_the_teacher_is_written_short(repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = compose("train", ["teacher=output/lmsys/blend", "teacher.temperature=5"])
    assert config.teacher == {"run": "output/lmsys/blend", "temperature": 5, "weight": 0.5}


def test_the_students_fold_stands_in_the_teachers_name(teacher, tmp_path):
    named = tmp_path / "without-all"
    shutil.copytree(teacher, named)
    folds = pd.read_csv(teacher / "folds.csv", dtype={"id": str})
    folds_by_id = dict(zip(folds["id"], folds["fold"], strict=True))
    rows = [taught_rows(run, folds_by_id, data_of(teacher)) for run in (named.with_name("without-%fold"), teacher)]
    assert rows[0] == rows[1]
