"""Predictions of calibrated and of blended runs, and the lines in the ledger with their own scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run
from nexttoken.commands.blend import main as blend
from nexttoken.errors import UserError
from nexttoken.metrics.pooling import equal_weights, pool
from nexttoken.metrics.scaling import Scaling
from nexttoken.runs.blend import Blend, read_blend, save_blend
from nexttoken.runs.calibration import Calibration, save_calibration
from nexttoken.runs.fold_baseline import baseline_of
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.read import read_run
from support.training import SAMPLE, predict, train

SCALING = Scaling("vector", np.diag([2.0, 2.0, 1.5]), np.array([0.1, 0.1, -0.2]))
SCORES = {"oof_log_loss": 0.5}


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Two folds of a run, and the same with another seed."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "logger=none")
        train(folder, f"fold={fold}", "logger=none", "name=other", "seed=1", "transforms=counts")
    return folder


def test_each_folds_probabilities_are_scaled_before_the_average(output):
    test, path = pd.read_csv(SAMPLE / "test.csv", dtype=str), output / "lmsys" / "tiny"
    plain, run = predict(output, f"run={path}"), load_run(path)
    singles = [type(run)(run.folder, [fold], run.parts, run.batch_tokens).predict(test) for fold in run.folds]
    trainings = {fold.number: fold.training_id for fold in run.folds}
    save_calibration(Calibration(SCALING, dict.fromkeys(trainings, SCALING), trainings, SCORES), {}, path)
    expected = np.mean([SCALING(one.iloc[:, 1:].to_numpy()) for one in singles], axis=0)
    np.testing.assert_allclose(load_run(path).predict(test).iloc[:, 1:], expected, atol=1e-6)
    np.testing.assert_allclose(predict(output, f"run={path}").iloc[:, 1:], expected, atol=1e-6)
    (own, calibrated), saved = read_ledger(output / "submissions" / "ledger.csv"), run.folds
    assert (own.file, own.asked) == ("tiny.csv", "")
    assert own.oof_log_loss == pytest.approx(np.mean([fold.metrics()["log_loss"] for fold in saved]), abs=1e-6)
    assert calibrated.file.startswith("tiny_calibrated_")
    assert (calibrated.asked, calibrated.oof_log_loss) == ("calibrated", 0.5)
    (path / "calibration.json").unlink()
    np.testing.assert_allclose(predict(output, f"run={path}").iloc[:, 1:], plain.iloc[:, 1:], atol=1e-9)


def test_a_blend_predicts_the_blend_of_its_members_predictions(output, capsys):
    runs = [output / "lmsys" / name for name in ("tiny", "other")]
    blend([f"runs={runs[0]},{runs[1]},baseline", "weights=equal", "of=logits"])
    folder = output / "lmsys" / "blend"
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str)
    members = [load_run(run).predict(test).iloc[:, 1:].to_numpy() for run in runs]
    members.append(baseline_of("baseline", RunFolder(runs[0])).answer(load_run(folder).parts.task.parse(test)).probs)
    expected = pool(np.array(members), equal_weights(3), "logits")
    predicted = predict(output, f"run={folder}")
    np.testing.assert_allclose(predicted.iloc[:, 1:], expected, atol=1e-6)
    np.testing.assert_allclose(load_run(folder).predict(test).iloc[:, 1:], expected, atol=1e-6)
    line, saved = read_ledger(output / "submissions" / "ledger.csv")[-1], read_run(folder)
    assert (line.file, line.folds, line.asked) == ("blend.csv", "0 1", "")
    assert line.oof_log_loss == pytest.approx(saved.score(saved.metric))
    metrics = json.loads((runs[0] / "fold0" / "metrics.json").read_text())
    assert saved.folds[0].metrics["prior_log_loss"] == metrics["prior_log_loss"]
    with pytest.raises(UserError, match="members answer in their own ways; leave inference"):
        predict(output, f"run={folder}", "fold=all")


def test_a_first_member_without_a_weight_is_not_asked(output):
    folder, runs = output / "lmsys" / "one", [output / "lmsys" / name for name in ("tiny", "other")]
    blend([f"runs={runs[0]},{runs[1]}", "weights=equal", "name=one"])
    first, second = read_blend(folder).members
    save_blend(Blend("logits", (replace(first, weight=0.0), replace(second, weight=1.0))), folder)
    test, loaded = pd.read_csv(SAMPLE / "test.csv", dtype=str), load_run(folder)
    np.testing.assert_allclose(loaded.predict(test).iloc[:, 1:], load_run(runs[1]).predict(test).iloc[:, 1:], atol=1e-9)
    assert [member.name for member in loaded.blend.members] == ["../other"]


def test_the_baseline_of_a_fold_is_that_of_the_training(output):
    """The regression of a fold, fitted on the other folds' rows, which limit_rows does not limit here."""
    run = read_run(output / "lmsys" / "tiny")
    baseline = baseline_of("baseline", RunFolder(run.folder))
    ids = {fold.number: fold.oof["id"].tolist() for fold in run.folds}
    rows = {example.id: example for example in baseline.task.read("train")}
    folds = dict(zip(baseline.folds.ids, baseline.folds.folds, strict=True))
    fitted = baseline.task.baselines()[0].fit([rows[one] for one in rows if folds[one] != 1])
    np.testing.assert_allclose(baseline.out_of_fold(ids)[1], fitted.predict([rows[one] for one in ids[1]]), atol=1e-9)
    with pytest.raises(UserError, match=r"the task lmsys has no baseline_3; known: baseline"):
        baseline_of("baseline_3", RunFolder(run.folder)).out_of_fold(ids)


def test_another_training_of_a_fold_takes_the_calibration_away(output):
    path = output / "lmsys" / "tiny"
    (path / "calibration.json").write_text("{}")
    train(output, "fold=1", "logger=none", "overwrite=true", "trainer.max_epochs=0")
    assert not (path / "calibration.json").exists()
