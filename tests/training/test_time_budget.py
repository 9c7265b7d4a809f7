"""A training with a deadline is shortened, its learning rate decays all the same, and the fold is scored in time."""

import json
import time

import pandas as pd
import pytest

from nexttoken.errors import UserError
from nexttoken.progress import Deadline
from nexttoken.training.time_budget import TimeBudget
from support.training import train


@pytest.mark.parametrize(
    ("num_scored", "refits", "steps"),
    # 1000 s, less 3 % and 3 s: 967 s; a row takes a quarter of a second of scoring; 10 steps are done
    [(0, False, 977), (400, False, 877), (0, True, 488), (400, True, 438), (10**6, False, 10), (10**6, True, 5)],
)
def test_the_steps_that_a_time_suffices_for(num_scored, refits, steps, monkeypatch):
    deadline = Deadline(1000)
    monkeypatch.setattr(Deadline, "left", property(lambda self: 1000.0))
    budget = TimeBudget(deadline, num_scored)
    assert budget.steps_in_time(10, step_seconds=1.0, rows_per_step=4, refits=refits) == steps


@pytest.mark.slow
def test_a_training_that_would_take_longer_ends_with_a_scored_fold(tmp_path, capsys):
    train(tmp_path, "fold=1", "logger=none")  # imports what the next one needs
    start = time.monotonic()
    more = ("trainer.max_epochs=2000", "fit.decay=linear", "fit.refit=false", "logger=none", "within=15s")
    train(tmp_path, *more, "name=timed")
    assert time.monotonic() - start < 15
    fold = tmp_path / "lmsys" / "timed" / "fold0"
    metrics, curve = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "curve.csv")
    assert metrics["num_examples"] == 24
    rates = curve["learning_rate"].dropna().to_numpy()
    assert len(rates) > 10
    assert rates[-1] < 0.3 * rates.max(), "it has decayed"
    assert " of 12,000 steps, so that the time suffices" in capsys.readouterr().out


def test_a_training_with_time_enough_is_the_same_as_without(tmp_path):
    losses = []
    for name in ("a", "b"):
        train(tmp_path, f"name={name}", "logger=none", *(["within=1h"] if name == "b" else []))
        losses.append(json.loads((tmp_path / "lmsys" / name / "fold0" / "metrics.json").read_text())["log_loss"])
    assert losses[0] == losses[1]


def test_a_probe_is_not_shortened(tmp_path):
    with pytest.raises(UserError, match=r"without within=.*leave it out"):
        train(tmp_path, "head=probe", "model.name_or_path=x", "train_transforms=none", "within=1h")


def test_a_time_that_is_over_before_the_training_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"within: 0\.01 s were over before the training began.*give more time"):
        train(tmp_path, "within=0.01s", "logger=none")
    assert not list(tmp_path.iterdir())
