"""Checkpoints chosen by the task's metric on the dev rows, with log loss for ties and where it cannot be computed."""

import json
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken import load_run, pipeline
from nexttoken.metrics.decisions import at_threshold
from nexttoken.metrics.named import metric_named
from nexttoken.training.dev_metric import DevMetric, DevScore
from support.training import composed

NAN = float("nan")


def dev_rows(seed: int, num_rows: int, num_classes: int = 2):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(num_rows, num_classes)).astype(np.float32), rng.integers(0, num_classes, num_rows)
    return [(str(row), int(labels[row]), scores[row]) for row in range(num_rows)]


def softmax(scores):
    weights = np.exp(np.array(scores, np.float64))
    return weights / weights.sum(axis=1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from(["auc", "map_at(2)", "accuracy", "qwk"]))
def test_dev_rows_are_scored_as_held_out_rows_are_in_any_order(seed, num_rows, name):
    rows, metric = dev_rows(seed, num_rows, 3), metric_named(name)
    expected = metric.score(softmax([row[2] for row in rows]), np.array([row[1] for row in rows]))
    shuffled = random.Random(seed).sample(rows, len(rows))
    found = DevMetric(metric).score(0.5, shuffled)
    assert (found.loss, found.threshold) == (0.5, None)
    assert found.score == pytest.approx(expected, nan_ok=True)


def test_a_metric_by_a_column_takes_the_tags_of_its_rows():
    no, yes = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    rows = [("a", 0, no), ("b", 1, yes), ("c", 0, no), ("d", 1, yes), ("e", 0, yes), ("f", 1, no)]
    by_rule = DevMetric(metric_named("auc_by(rule)"), dict(zip("abcdef", "xxxxyy", strict=True)))
    assert by_rule.score(0.5, rows[::-1]).score == 0.5  # 1 for x and 0 for y


def test_rows_with_options_of_their_own_are_scored_by_means_over_rows_only():
    scores = np.array([2.0, 1.0, -np.inf]), np.array([0.0, 1.0, 2.0]), np.array([3.0, 1.0])
    rows = list(zip("abc", (0, 2, 1), scores, strict=True))
    assert DevMetric(metric_named("map_at(2)")).score(0.5, rows).score == pytest.approx((1 + 1 + 1 / 2) / 3)
    for name in ("auc", "f1(macro)"):
        found = DevMetric(metric_named(name)).score(0.5, rows)
        assert (found.loss, found.threshold) == (0.5, None)
        assert np.isnan(found.score)


def test_rows_of_one_class_leave_the_choice_to_log_loss():
    one_class = DevMetric(metric_named("auc"))
    found = one_class.score(0.5, [("a", 1, np.array([0.0, 1.0])), ("b", 1, np.array([0.0, 2.0]))])
    assert np.isnan(found.score)
    assert one_class.measured(found) == {"dev_log_loss": 0.5, "dev_auc": None}
    assert one_class.is_better(found, DevScore(0.6))
    assert not one_class.is_better(found, DevScore(0.4))


@pytest.mark.parametrize(
    ("new", "old", "is_better"),
    [
        (DevScore(0.9, 0.8), DevScore(0.5, 0.7), True),
        (DevScore(0.5, 0.7), DevScore(0.9, 0.8), False),
        (DevScore(0.4, 0.8), DevScore(0.5, 0.8), True),
        (DevScore(0.5, 0.8), DevScore(0.5, 0.8), False),
        (DevScore(0.5, 0.1), DevScore(), True),
    ],
)
def test_the_metric_decides_and_log_loss_breaks_ties(new, old, is_better):
    assert DevMetric(metric_named("auc")).is_better(new, old) is is_better
    assert DevMetric().is_better(new, old) is (new.loss < old.loss)


def test_the_best_threshold_of_the_dev_rows_is_kept():
    rows = [(str(n), int(n > 7), np.array([0.0, -2.0 + 0.1 * n])) for n in range(10)]
    f1 = DevMetric(metric_named("f1(binary)"))
    found = f1.score(0.5, rows)
    assert found.score == 1.0
    assert f1.measured(found)["threshold"] == found.threshold
    probs = at_threshold(softmax([row[2] for row in rows]), found.threshold)
    assert probs.argmax(axis=1).tolist() == [0] * 8 + [1] * 2


# Whole trainings

TINY = (
    "task=quiz", "name=tiny", "split.num_folds=3", "split.dev_fraction=0.3", "max_tokens=120", "trainer.max_epochs=3",
    "model.scratch.hidden_size=32", "model.scratch.num_layers=1", "model.scratch.vocab_size=400", "logger=none",
    "fit.batch_size=4", "train_transforms=none", "fold=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Questions whose second option is right for every third of them."""
    path = tmp_path_factory.mktemp("quiz")
    rows = [
        {"genre": "ab"[n % 2], "question": f"Which house has number {n * 37}?", "options": ["no", "yes"]}
        | {"answer": int(n % 3 == 0)}
        for n in range(60)
    ]
    for name in ("train", "test"):
        lines = "".join(json.dumps(row | {"id": f"{name}{n}"}) + "\n" for n, row in enumerate(rows))
        (path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return path


def trained(folder, output_dir, metric, *overrides):
    given = (*TINY, f"+task.metric='{metric}'", "task.num_options=2", f"input_dir={folder}", f"output_dir={output_dir}")
    pipeline.train(composed("train", *given, *overrides))
    fold = output_dir / "quiz" / "tiny" / "fold0"
    return json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "curve.csv")


def test_the_curve_has_the_metric_and_its_best_epoch_is_taken(folder, tmp_path, capsys):
    saved, curve = trained(folder, tmp_path, "auc_by(genre)")
    dev = curve.dropna(subset="dev_log_loss").reset_index()
    best = dev.sort_values(["dev_auc_by(genre)", "dev_log_loss"], ascending=[False, True]).iloc[0]
    assert len(dev) == 3
    assert (saved["metric"], saved["best_epoch"]) == ("auc_by(genre)", best["epoch"] + 1)
    assert saved["dev_auc_by(genre)"] == pytest.approx(best["dev_auc_by(genre)"])
    assert saved["dev_log_loss"] == pytest.approx(best["dev_log_loss"])
    assert 0 <= saved["auc_by(genre)"] <= 1
    assert saved["prior_auc_by(genre)"] == 0.5
    shown = capsys.readouterr().out
    assert "| score of" in shown
    assert "AUC by genre" in shown
    assert f"the best dev auc_by(genre), {saved['dev_auc_by(genre)']:.4f}" in shown


def test_the_threshold_of_the_dev_rows_scores_the_fold_and_decides_in_prediction(folder, tmp_path):
    saved, _ = trained(folder, tmp_path, "f1(binary)")
    oof = pd.read_csv(tmp_path / "quiz" / "tiny" / "fold0" / "oof.csv")
    probs, metric = oof[["0", "1"]].to_numpy(), metric_named("f1(binary)")
    assert saved["f1(binary)"] == metric.score(at_threshold(probs, saved["threshold"]), oof["label"].to_numpy())
    run = load_run(tmp_path / "quiz" / "tiny")
    predictions = run.answer(run.parts.task.read("test")[:3])
    assert predictions.threshold == saved["threshold"]


def test_without_dev_rows_there_is_no_threshold_and_the_metric_is_scored(folder, tmp_path):
    saved, curve = trained(folder, tmp_path, "f1(macro)", "split.dev_fraction=0", "trainer.max_epochs=1")
    assert "threshold" not in saved
    assert "dev_f1(macro)" not in saved
    assert 0 <= saved["f1(macro)"] <= 1
    assert curve["dev_log_loss"].isna().all()
