"""Predictions of calibrated runs: each fold's probabilities are scaled, and the ledger says so with the right score."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import load_run
from nexttoken.metrics.scaling import Scaling
from nexttoken.runs.calibration import Calibration, save_calibration
from nexttoken.runs.ledger import read_ledger
from support.training import SAMPLE, predict, train

SCALING = Scaling("vector", np.diag([2.0, 2.0, 1.5]), np.array([0.1, 0.1, -0.2]))
SCORES = {"oof_log_loss": 0.5}


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Two folds of a run."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "logger=none")
    return folder


def test_each_folds_probabilities_are_scaled_before_the_average(output):
    test, path = pd.read_csv(SAMPLE / "test.csv", dtype=str), output / "lmsys" / "tiny"
    plain, run = predict(output), load_run(path)
    singles = [type(run)(run.folder, [fold], run.parts, run.batch_tokens).predict(test) for fold in run.folds]
    trainings = {fold.number: fold.training_id for fold in run.folds}
    save_calibration(Calibration(SCALING, dict.fromkeys(trainings, SCALING), trainings, SCORES), {}, path)
    expected = np.mean([SCALING(one.iloc[:, 1:].to_numpy()) for one in singles], axis=0)
    np.testing.assert_allclose(load_run(path).predict(test).iloc[:, 1:], expected, atol=1e-6)
    np.testing.assert_allclose(predict(output).iloc[:, 1:], expected, atol=1e-6)
    (own, calibrated), saved = read_ledger(output / "submissions" / "ledger.csv"), run.folds
    assert (own.file, own.asked) == ("tiny.csv", "")
    assert own.oof_log_loss == pytest.approx(np.mean([fold.metrics()["log_loss"] for fold in saved]), abs=1e-6)
    assert calibrated.file.startswith("tiny_calibrated_")
    assert (calibrated.asked, calibrated.oof_log_loss) == ("calibrated", 0.5)
    (path / "calibration.json").unlink()
    np.testing.assert_allclose(predict(output).iloc[:, 1:], plain.iloc[:, 1:], atol=1e-9)


def test_another_training_of_a_fold_takes_the_calibration_away(output):
    path = output / "lmsys" / "tiny"
    (path / "calibration.json").write_text("{}")
    train(output, "fold=1", "logger=none", "overwrite=true", "trainer.max_epochs=0")
    assert not (path / "calibration.json").exists()
