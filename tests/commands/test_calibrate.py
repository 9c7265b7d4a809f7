"""The calibration of a run: kept where the nested gain is above zero, and refused where it is stale."""

import json
from pathlib import Path

import numpy as np
import pytest

from nexttoken.commands.calibrate import main
from nexttoken.errors import UserError
from nexttoken.metrics.scaling import soften
from nexttoken.runs.blend_fit import Members
from nexttoken.runs.calibration import read_calibration, swap_of
from nexttoken.runs.calibration_fit import calibrated, gain_of
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.read import read_run
from support.composed import composed
from support.finished_runs import write_run


def drawn(num_rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), num_rows)
    return probs, (rng.random(num_rows)[:, None] > probs.cumsum(axis=1)).sum(axis=1)


def sharp_run(folder: Path, **changed: object) -> Path:
    probs, labels = drawn()
    return write_run(folder, soften(probs, 0.4), labels, **changed)


def test_an_overconfident_run_is_calibrated_and_says_what_it_gained(tmp_path, capsys):
    run = sharp_run(tmp_path / "a")
    main([f"run={run}"])
    shown = capsys.readouterr().out
    assert "scaling, the same for both answers of a pair, in" in shown
    table = [line.split("|")[1:] for line in shown.splitlines() if line.startswith("|")]
    assert [cells[0].strip() for cells in table][2:] == [
        "as trained", "temperature", "vector", "matrix", "chosen within the other folds",
    ]  # fmt: skip
    assert [cell.strip() for cell in table[0][1:5]] == ["log loss", "accuracy", "ECE", "Brier"]
    found = read_calibration(RunFolder(run), 3)
    assert np.diag(found.scaling.weights) == pytest.approx(0.4, rel=0.25)
    before, after = read_run(run), calibrated(read_run(run), found)
    gain, interval = gain_of(after, before)
    assert f"gain in log loss: {gain:+.4f}" in shown
    assert 0 < interval.low < gain < interval.high
    assert found.scores["oof_log_loss"] == pytest.approx(after.score(after.metric))


def test_a_calibrated_run_is_not_changed_and_an_earlier_file_goes(tmp_path, capsys):
    probs, labels = drawn()
    run = write_run(tmp_path / "a", probs, labels)
    (run / "calibration.json").write_text("{}")
    main([f"run={run}"])
    assert "not kept: no gain is shown" in capsys.readouterr().out
    assert not (run / "calibration.json").exists()


def test_each_fold_is_scored_without_its_own_labels(tmp_path, capsys):
    run = sharp_run(tmp_path / "a")
    main([f"run={run}"])
    own = read_calibration(RunFolder(run), 3).by_fold
    probs, labels = drawn()
    labels[0::4] = (labels[0::4] + 1) % 3  # fold 0 alone
    other = write_run(tmp_path / "b", soften(probs, 0.4), labels)
    main([f"run={other}"])
    changed = read_calibration(RunFolder(other), 3)
    if changed is not None:
        np.testing.assert_array_equal(changed.by_fold[0].weights, own[0].weights)
        assert (changed.by_fold[1].weights != own[1].weights).any()


@pytest.mark.parametrize(
    ("num_rows", "num_folds", "message"),
    [(60, 4, "has 60 out-of-fold rows in 32 groups, expected at least 100"), (400, 1, "has one finished fold")],
)
def test_too_few_rows_or_folds_are_refused(tmp_path, num_rows, num_folds, message):
    probs, labels = drawn(num_rows)
    run = write_run(tmp_path / "a", probs, labels, num_folds)
    with pytest.raises(UserError, match=message):
        main([f"run={run}"])


def test_a_run_behind_a_gate_is_refused(tmp_path):
    run = sharp_run(tmp_path / "a", inference=composed("inference=adaptive_swap")["inference"])
    (run / "gate.json").write_text("{}")
    with pytest.raises(UserError, match=r"answers by the thresholds of gate.json"):
        main([f"run={run}"])


def test_a_gate_for_another_way_of_asking_stops_neither_a_calibration_nor_a_blend(tmp_path, capsys):
    """`gate` leaves thresholds for inference=adaptive_swap beside a run that answers once, or in both orders."""
    for name, way in [("a", "once"), ("b", "swap_averaged")]:
        run = sharp_run(tmp_path / name, inference=composed(f"inference={way}")["inference"])
        (run / "gate.json").write_text("{}")
        main([f"run={run}"])
        assert (run / "calibration.json").exists()
    assert len(Members.read([str(tmp_path / "a"), str(tmp_path / "b")]).tables) == 2


def test_a_calibration_of_another_training_or_that_was_edited_is_refused(tmp_path, capsys):
    run = sharp_run(tmp_path / "a")
    main([f"run={run}"])
    text = (run / "calibration.json").read_text()
    (run / "calibration.json").write_text(text.replace('"temperature"', '"vector"'))
    with pytest.raises(UserError, match="was changed after the calibration was fitted"):
        read_calibration(RunFolder(run), 3)
    (run / "calibration.json").write_text(text)
    with pytest.raises(UserError, match="holds no calibration of 2 classes"):
        read_calibration(RunFolder(run), 2)
    metrics = json.loads((run / "fold1" / "metrics.json").read_text())
    (run / "fold1" / "metrics.json").write_text(json.dumps(metrics | {"seconds": 1.0}))
    with pytest.raises(UserError, match=r"fitted before .*fold1 was trained again"):
        read_calibration(RunFolder(run), 3)


def test_a_run_of_both_orders_is_treated_alike(tmp_path):
    probs, labels = drawn(8)
    averaged = {"inference": {"_target_": "nexttoken.inference.SwapAveraged"}}
    assert swap_of(FoldFolder(write_run(tmp_path / "a", probs, labels, **averaged) / "fold0")) == (1, 0, 2)
    once = {"inference": {"_target_": "nexttoken.inference.Once"}, "train_transforms": {}}
    assert swap_of(FoldFolder(write_run(tmp_path / "b", probs, labels, **once) / "fold0")) is None
