"""Runs made of others: seeds of one fold, scored on its held-out rows, and the folds of a run as one model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken.commands.average import main as average
from nexttoken.runs.folder import FoldFolder
from support.commands import refusal, status_of
from support.training import predict, train

ADAPTER = ("adapter=lora", "fit=finetune", "adapter.r=4", "adapter.alpha=8", "fit.learning_rate=0.01", "logger=none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base_dir) -> Path:
    """Two seeds of fold 0, and fold 1 of the first."""
    folder = tmp_path_factory.mktemp("parts")
    model = f"model.name_or_path={base_dir}"
    train(folder, "fold=0", model, *ADAPTER, "name=a")
    train(folder, "fold=1", model, *ADAPTER, "name=a")
    train(folder, "fold=0", model, *ADAPTER, "name=b", "seed=1", "adapter.alpha=6")
    return folder / "lmsys"


def test_seeds_of_a_fold_become_one_scored_run(runs, tmp_path, capsys):
    out = tmp_path / "lmsys" / "both"
    assert status_of("average", [str(runs / "a"), str(runs / "b"), "fold=0", f"out={out}"]) == 0
    said = capsys.readouterr().out.splitlines()
    saved = json.loads((out / "fold0" / "metrics.json").read_text())
    assert said[0] == "average of 2 adapters, rank 8"
    assert f"averaged adapter: {saved['log_loss']:.4f}" in said
    for name in ("a", "b"):
        own = json.loads((runs / name / "fold0" / "metrics.json").read_text())["log_loss"]
        assert f"{runs / name / 'fold0'}: log loss {own:.4f}" in said
    oof = pd.read_csv(out / "fold0" / "oof.csv", dtype={"id": str})
    assert oof["id"].tolist() == pd.read_csv(runs / "a" / "fold0" / "oof.csv", dtype={"id": str})["id"].tolist()
    assert status_of("report", [str(out)]) == 0
    assert len(predict(tmp_path, f"run={out}"))


def test_the_folds_of_a_run_become_a_final_model(runs, tmp_path, capsys):
    out = tmp_path / "lmsys" / "whole"
    assert status_of("average", [str(runs / "a"), f"out={out}"]) == 0
    assert "it has learnt every row, so that it has no out-of-fold score" in capsys.readouterr().out
    assert not (out / "all" / "oof.csv").exists()
    table, parts = predict(tmp_path, f"run={out}"), predict(tmp_path, f"run={runs / 'a'}")
    columns = list(table)[1:]
    assert table["id"].tolist() == parts["id"].tolist()
    gaps = np.abs(table[columns] - parts[columns]).to_numpy()
    assert 0 < gaps.mean() < 0.05  # near the mean of the folds' probabilities, which is another average


def test_an_interrupted_average_leaves_nothing(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(FoldFolder, "save_metrics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        average([str(runs / "a"), f"out={tmp_path / 'whole'}"])
    assert not list(tmp_path.iterdir())


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_averaged_is_one_line(runs, tmp_path, capsys):
    out = tmp_path / "new" / "x"
    line = refusal(capsys, "average", str(runs / "a"), "fold=0", f"out={out}")
    assert "is the only adapter; give a second run, or leave fold= out" in line
    line = refusal(capsys, "average", str(runs / "b"), f"{runs / 'b'}/", "fold=0", f"out={out}")
    assert "is the only adapter" in line
    line = refusal(capsys, "average", str(runs / "a"), str(runs / "b"), "fold=1", f"out={out}")
    assert line == f"{runs / 'b' / 'fold1'} is not finished; train it first: python train.py fold=1"
    assert "out= is missing; write out=output/<task>/<name>" in refusal(capsys, "average", str(runs / "a"))
    assert not out.parent.exists()
