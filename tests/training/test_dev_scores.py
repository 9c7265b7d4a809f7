"""Dev rows scored several times an epoch: the places, the choice, patience, and a choice after a temperature."""

import json

import numpy as np
import pandas as pd
import pytest

from nexttoken.metrics.named import metric_named
from nexttoken.metrics.probabilities import log_loss
from nexttoken.metrics.scaling import fit_temperature, soften
from nexttoken.training.dev_metric import DevMetric, DevScore
from support.training import train

STEPS = ("logger=none", "fold=0", "limit_rows=24", "fit.batch_size=3")  # 8 steps an epoch


def fold_of(folder, *overrides):
    train(folder, *STEPS, *overrides)
    fold = folder / "lmsys" / "tiny" / "fold0"
    return json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "curve.csv")


def dev_points(curve):
    return curve.dropna(subset="dev_log_loss").drop_duplicates("step")


def test_dev_rows_are_scored_within_an_epoch_and_the_best_place_is_taken(tmp_path):
    saved, curve = fold_of(tmp_path / "often", "fit.dev_every=0.25", "trainer.max_epochs=2")
    dev = dev_points(curve)
    assert dev["step"].tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    assert saved["best_step"] == dev.loc[dev["dev_log_loss"].idxmin(), "step"]
    assert saved["refit_steps"] == saved["best_step"]
    _, whole = fold_of(tmp_path / "once", "trainer.max_epochs=2")
    at_ends = dev_points(whole).set_index("step")["dev_log_loss"]
    assert at_ends.index.tolist() == [8, 16]
    assert dev.set_index("step").loc[at_ends.index, "dev_log_loss"].tolist() == pytest.approx(at_ends.tolist())


def test_one_epoch_has_a_choice_where_it_is_scored_within(tmp_path):
    saved, curve = fold_of(tmp_path, "fit.dev_every=0.5")
    assert dev_points(curve)["step"].tolist() == [4, 8]
    assert saved["best_step"] in (4, 8)
    assert saved["refit_steps"] == saved["best_step"]


def test_training_stops_for_want_of_a_better_score(tmp_path):
    """A rate that is far too high: the first score is the best one."""
    overrides = ("fit.dev_every=0.25", "trainer.max_epochs=3", "fit.learning_rate=1", "fit.warmup_fraction=0")
    saved, curve = fold_of(tmp_path, *overrides, "fit.patience=2", "fit.decay=constant")
    dev = dev_points(curve[curve["refit"] == 0])
    assert saved["best_step"] == dev.loc[dev["dev_log_loss"].idxmin(), "step"]
    assert dev["step"].max() == saved["best_step"] + 2 * 2  # two scores later, each after two steps
    assert dev["step"].max() < 24
    assert len(curve.dropna(subset="dev_log_loss")) == len(dev)  # no score twice


def rows(probs, labels):
    return [(str(n), int(label), np.log(row)) for n, (row, label) in enumerate(zip(probs, labels, strict=True))]


def test_a_sharper_checkpoint_is_chosen_after_a_temperature():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    good = random.dirichlet([1, 1, 1], 200) + 0.2 * np.eye(3)[labels]
    good /= good.sum(axis=1, keepdims=True)
    sharp = soften(good, 0.2)  # the same order of classes, far too sure
    flat = (good + 0.5) / 2.5
    flat[random.random(200) < 0.2] = 1 / 3
    plain, after = DevMetric(), DevMetric(softens=True)
    found = {
        name: after.score(log_loss(probs, labels), rows(probs, labels))
        for name, probs in (("sharp", sharp), ("flat", flat))
    }
    assert found["sharp"].softened == pytest.approx(log_loss(soften(sharp, fit_temperature(sharp, labels)), labels))
    assert found["sharp"].loss > found["flat"].loss
    assert after.is_better(found["sharp"], found["flat"])
    assert not plain.is_better(DevScore(found["sharp"].loss), DevScore(found["flat"].loss))
    assert after.measured(found["sharp"])["dev_log_loss_softened"] == found["sharp"].softened
    assert "dev_log_loss_softened" not in plain.measured(DevScore(1.0))
    ranked = DevMetric(metric_named("accuracy"), softens=True)
    assert ranked.score(0.5, rows(sharp, labels)).softened == pytest.approx(found["sharp"].softened)


def test_the_choice_after_a_temperature_is_told(tmp_path):
    saved, _ = fold_of(tmp_path, "fit.choose_after_temperature=true", "trainer.max_epochs=2")
    assert saved["dev_log_loss_softened"] <= saved["dev_log_loss"] + 1e-9
