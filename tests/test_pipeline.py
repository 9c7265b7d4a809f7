"""The spine from files to a submission, on the embedded sample with a model of a few thousand parameters."""

import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nexttoken import load_run
from nexttoken.errors import UserError
from nexttoken.metrics import probabilities as metrics
from support.training import SAMPLE, predict, train

METRICS = {
    "log_loss",
    "accuracy",
    "num_examples",
    "uniform_log_loss",
    "prior_log_loss",
    "baseline_log_loss",
    "best_possible_log_loss",
    "seconds",
    "rows_per_second",
    "peak_memory_mb",
    "num_truncated",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folds 0 and 1 of one run."""
    folder = tmp_path_factory.mktemp("output")
    for fold in (0, 1):
        train(folder, f"fold={fold}", "save_prompts=true")
    return folder


def test_a_fold_leaves_what_the_contract_names(trained):
    fold = trained / "lmsys" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    assert saved.keys() >= METRICS
    oof = pd.read_csv(fold / "oof.csv")
    assert list(oof.columns) == ["id", "fold", "label", "winner_model_a", "winner_model_b", "winner_tie"]
    probs = oof.iloc[:, 3:].to_numpy()
    assert np.abs(probs.sum(axis=1) - 1).max() < 1e-12
    assert metrics.log_loss(probs, oof["label"].to_numpy()) == pytest.approx(saved["log_loss"], abs=1e-12)
    assert saved["uniform_log_loss"] == pytest.approx(math.log(3))
    rows = pd.read_csv(fold / "rows.csv")
    assert rows["truncated"].dtype == bool
    assert rows["outside"][:200].between(0, 1).all()
    names = {path.name for path in fold.iterdir()}
    assert names >= {"config.yaml", "labels.json", "model", "curve.csv", "tensorboard", "prompts.jsonl"}
    assert {path.name for path in (fold / "model").iterdir()} >= {"model.safetensors", "tokenizer.json", "config.json"}


def test_the_device_and_the_precision_are_printed(tmp_path, capsys):
    train(tmp_path, "fold=0", "trainer.max_epochs=1", "limit_rows=8", "trainer.accelerator=cpu")
    lines = capsys.readouterr().out.splitlines()
    values = [line.partition(" ")[0] for line in lines]
    assert "device    cpu, 32-true, weights in float32" in lines
    assert values.index("run") < values.index("device") < 12  # on one screen with the other values


def test_held_out_rows_are_not_trained_on(trained):
    folds = pd.read_csv(trained / "lmsys" / "tiny" / "folds.csv")
    assert folds.groupby("group")["fold"].nunique().max() == 1
    for number in (0, 1):
        held_out = pd.read_csv(trained / "lmsys" / "tiny" / f"fold{number}" / "oof.csv")["id"]
        assert set(held_out) <= set(folds.loc[folds["fold"] == number, "id"])


def test_prompts_show_what_the_model_read(trained):
    fold = trained / "lmsys" / "tiny" / "fold0"
    lines = [json.loads(line) for line in (fold / "prompts.jsonl").read_text().splitlines()]
    ids = pd.read_csv(fold / "oof.csv", dtype={"id": str})["id"]
    assert [line["id"] for line in lines] == ids.tolist()
    assert all(line["text"].endswith("### Answer\n") for line in lines)
    assert list(lines[0]["label_token_ids"]) == ["A", "B", "tie"]


def test_prediction_reads_the_prompts_that_training_would_have(trained):
    """Asking a held-out row again through the run folder gives its out-of-fold probabilities."""
    run = load_run(trained / "lmsys" / "tiny")
    first = type(run)(run.folder, run.folds[:1], run.parts, run.batch_tokens)
    oof = pd.read_csv(run.folds[0].path / "oof.csv", dtype={"id": str})
    rows = {example.id: example for example in run.parts.task.read("train")}
    again = first.answer([rows[row_id] for row_id in oof["id"]])
    assert np.abs(again.probs - oof.iloc[:, 3:].to_numpy()).max() < 1e-6


def test_a_submission_is_the_average_of_the_folds(trained):
    submission = predict(trained)
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str)
    assert submission["id"].tolist() == test["id"].tolist()
    assert list(submission.columns) == list(pd.read_csv(SAMPLE / "sample_submission.csv", nrows=0).columns)
    probs = submission.iloc[:, 1:].to_numpy()
    assert np.isfinite(probs).all()
    assert np.abs(probs.sum(axis=1) - 1).max() < 1e-9
    run = load_run(trained / "lmsys" / "tiny")
    assert run.numbers == (0, 1)
    assert np.abs(run.predict(test).iloc[:, 1:].to_numpy() - probs).max() < 1e-12
    singles = [type(run)(run.folder, [fold], run.parts, 300).predict(test).iloc[:, 1:].to_numpy() for fold in run.folds]
    assert np.abs(np.mean(singles, axis=0) - probs).max() < 1e-6, "batches of 300 tokens changed the probabilities"


def test_the_same_command_again_shows_the_finished_fold(trained, capsys):
    before = (trained / "lmsys" / "tiny" / "fold0" / "metrics.json").read_bytes()
    train(trained, "fold=0")
    assert "this fold (trained)" in capsys.readouterr().out
    assert (trained / "lmsys" / "tiny" / "fold0" / "metrics.json").read_bytes() == before


def test_other_settings_under_the_same_name_are_refused(trained):
    with pytest.raises(UserError, match=r"fit.learning_rate: 0.002 -> 0.5\); choose another name="):
        train(trained, "fold=0", "fit.learning_rate=0.5")
    with pytest.raises(UserError, match=r"prompt.user: '### Instruction") as error:
        train(trained, "fold=0", "prompt=conversation")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.max_epochs=0"],
        ["head=vocabulary"],
        ["head=classification"],
        ["fit.neftune_alpha=5", "fit.gradient_checkpointing=true", "fit.optimizer=adamw_8bit"],
        ["fit.text_epochs=1"],
        ["prompt=conversation"],
        ["prompt=instruction_counts", "transforms=counts", "inference=swap_averaged"],
        ["train_transforms=none", "split.dev_fraction=0", "logger=none", "fit.decay=cosine"],
        ["prompt.labels=[first,second,neither of them]", "batch_tokens=600"],
        ["debug=fast", "limit_rows=24"],
    ],
    ids=" ".join,
)
def test_every_way_of_training_ends_in_a_submission(tmp_path, overrides):
    assert 0 < train(tmp_path, "fold=2", *overrides) < 10  # untrained labels of several tokens start far off
    assert len(predict(tmp_path)) == len(pd.read_csv(SAMPLE / "test.csv"))


def test_swap_averaging_makes_the_order_irrelevant(tmp_path):
    train(tmp_path, "fold=0", "inference=swap_averaged")
    run = load_run(tmp_path / "lmsys" / "tiny")
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str).head(20)
    swapped = test.rename(columns={"response_a": "response_b", "response_b": "response_a"})
    straight, other = (run.predict(frame).iloc[:, 1:].to_numpy() for frame in (test, swapped))
    assert np.abs(straight - other[:, [1, 0, 2]]).max() < 1e-6


def test_a_diverging_loss_stops_and_names_ids(tmp_path):
    with pytest.raises(UserError, match=r"the (loss|dev loss|gradient's norm) is (nan|inf) at step \d+, ids \d+"):
        train(tmp_path, "fold=0", "fit.learning_rate=1e30", "trainer.max_epochs=20", "fit.checkpoint_steps=1")
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    assert not (fold / "metrics.json").exists()
    kept = torch.load(fold / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(weight).all() for weight in kept.values())


@pytest.mark.parametrize("mistake", ["model.name_or_path=/nowhere", "prompt.user='{{ nope }}'", "max_tokens=20"])
def test_a_refused_command_leaves_what_was_there(trained, tmp_path, mistake):
    """Not even overwrite=true deletes a fold before its successor is ready to train."""
    before = (trained / "lmsys" / "tiny" / "fold1" / "metrics.json").read_bytes()
    with pytest.raises(UserError):
        train(trained, "fold=1", "overwrite=true", mistake)
    assert (trained / "lmsys" / "tiny" / "fold1" / "metrics.json").read_bytes() == before
    with pytest.raises(UserError):
        train(tmp_path, "fold=0", mistake)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupted_fold_is_not_continued_on_other_rows(tmp_path):
    train(tmp_path, "fold=0")
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    (fold / "metrics.json").unlink()
    (fold / "data.sha256").write_text("0" * 64)
    with pytest.raises(UserError, match="was started on other rows than"):
        train(tmp_path, "fold=0")
    train(tmp_path, "fold=0", "overwrite=true")


@pytest.mark.parametrize(
    "content", [b"", b"broken", pickle.dumps({"a": print}), None], ids=["empty", "broken", "code", "cut"]
)
def test_a_broken_checkpoint_is_one_line(tmp_path, content):
    train(tmp_path, "fold=0")
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    (fold / "metrics.json").unlink()
    last = fold / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000] if content is None else content)
    with pytest.raises(UserError, match=r"last.ckpt cannot be loaded \(.*\); overwrite=true trains this fold again"):
        train(tmp_path, "fold=0")


def test_a_copy_beside_the_folds_is_ignored(trained, tmp_path):
    shutil.copytree(trained / "lmsys", tmp_path / "lmsys")
    shutil.copytree(tmp_path / "lmsys" / "tiny" / "fold0", tmp_path / "lmsys" / "tiny" / "fold0 (copy)")
    assert load_run(tmp_path / "lmsys" / "tiny").numbers == (0, 1)


def test_an_incomplete_run_folder_is_one_line(trained, tmp_path):
    shutil.copytree(trained / "lmsys", tmp_path / "lmsys")
    (tmp_path / "lmsys" / "tiny" / "fold1" / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"fold1/model/model\.safetensors was removed after .*train this fold again"):
        predict(tmp_path)
    assert not (tmp_path / "submissions" / "tiny.csv").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"response_a": None}, r"row 1 \(lacks response_a"),
        ({"id": 1.5}, "its id is 1.5, expected text or a whole number"),
        ({"prompt": "no list"}, "is not a JSON list"),
    ],
)
def test_a_table_in_memory_is_checked_like_a_file(trained, change, line):
    test = pd.read_csv(SAMPLE / "test.csv", dtype=str).head(3)
    with pytest.raises(UserError, match=line):
        load_run(trained / "lmsys" / "tiny").predict(test.assign(**change))
