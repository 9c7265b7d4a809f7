"""Remarks on a finished fold: its checkpoint, and a training that went wrong."""

import pytest

from nexttoken.report.training import remarks

SAVED = {"trained": True, "log_loss": 1.0, "prior_log_loss": 1.1, "best_epoch": 2, "best_step": 30}


def test_the_checkpoint_is_named():
    assert remarks(SAVED) == ["checkpoint: epoch 2, step 30 (the last)"]
    (line,) = remarks(SAVED | {"dev_log_loss": 0.98765, "refit_steps": 30})
    assert "the best dev loss, 0.9877" in line
    assert "trained anew on train and dev rows for as many steps" in line
    (line,) = remarks(SAVED | {"refit_steps": 20})
    assert line.endswith("; then trained anew on train and dev rows for 20 steps")


def test_the_checkpoint_is_named_by_the_tasks_metric():
    saved = SAVED | {"dev_log_loss": 0.7, "metric": "auc", "dev_auc": 0.81, "auc": 0.8}
    assert remarks(saved) == ["checkpoint: epoch 2, step 30 (the best dev auc, 0.8100; dev loss 0.7000)"]
    assert "the best dev loss, 0.7000" in remarks(saved | {"dev_auc": None})[0]  # which chose it then
    assert "the best dev loss, 0.7000" in remarks(saved | {"metric": "log_loss"})[0]


def test_values_that_a_metric_leaves_out_are_named_and_so_is_a_fold_without_a_score():
    saved = SAVED | {"metric": "auc_by(rule)", "auc_by(rule)": None, "left_out": ["law", "ads"]}
    assert remarks(saved)[1:] == [
        "auc_by(rule): rows of one class only are left out: law, ads",
        "auc_by(rule) cannot be computed on these held-out rows, so that this fold has no score by it",
    ]


@pytest.mark.parametrize(("loss", "is_worse"), [(1.05, False), (1.1, False), (2.77, True)])
def test_a_fold_worse_than_the_class_prior_says_so(loss, is_worse):
    assert any("worse than the class prior" in line for line in remarks(SAVED | {"log_loss": loss})) == is_worse
    assert not remarks({"trained": False, "log_loss": loss, "prior_log_loss": 1.1})


def test_the_class_prior_is_compared_by_the_tasks_metric():
    saved = SAVED | {"log_loss": 1.2, "metric": "f1(macro)", "f1(macro)": 0.6, "prior_f1(macro)": 0.4}
    assert not any("worse than the class prior" in line for line in remarks(saved))
    for changed in ({"f1(macro)": 0.3}, {"f1(macro)": None}):
        assert any("worse than the class prior" in line for line in remarks(saved | changed))


@pytest.mark.parametrize(("last", "says"), [(0.01, False), (1.2, True)])
def test_a_training_loss_that_does_not_fall_is_named(last, says):
    line = remarks(SAVED | {"first_train_loss": 1.1, "last_train_loss": last})[-1]
    assert f"{last:.4f} in the last" in line
    assert ("it did not fall" in line) == says


BY_HEART = {"best_epoch": 60, "best_step": 60, "first_train_loss": 0.9}


@pytest.mark.parametrize(
    ("last", "steps", "says"), [(0.04, 60, "nearly nothing, so"), (0.3, 240, "not nearly nothing")]
)
def test_rows_learnt_by_heart_are_judged_by_the_training_loss_alone(last, steps, says):
    lines = remarks(SAVED | BY_HEART | {"best_step": steps, "last_train_loss": last, "log_loss": 3.0})
    assert says in lines[-1]
    assert f"{last:.4f} in the last" in lines[-1]
    assert ("prompts.jsonl" in lines[-1]) == (last > 0.1)
    assert not any("class prior" in line for line in lines)  # held-out rows are not what such a training is for


@pytest.mark.parametrize("changed", [{"best_step": 600}, {"best_epoch": 5, "best_step": 20}, {"dev_log_loss": 0.9}])
def test_a_real_training_need_not_fall_to_nothing(changed):
    lines = remarks(SAVED | BY_HEART | {"last_train_loss": 0.8, "log_loss": 3.0} | changed)
    assert lines[-1].endswith("0.8000 in the last")
    assert any("class prior" in line for line in lines)
