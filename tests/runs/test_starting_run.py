"""Trainings that begin from another run: from its weights or its adapter, never from one that learnt held-out rows."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nexttoken.errors import UserError
from support.training import predict, train

ADAPTER = ("adapter=lora", "fit=finetune", "adapter.r=4", "adapter.alpha=8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Fold 0 of a run that saved all its weights."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, "fold=0")
    return folder / "lmsys" / "tiny"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, base_dir) -> Path:
    """Fold 0 of a run that saved an adapter."""
    folder = tmp_path_factory.mktemp("adapted")
    train(folder, "fold=0", f"model.name_or_path={base_dir}", *ADAPTER, "fit.learning_rate=0.01")
    return folder / "lmsys" / "tiny"


def loss(fold: Path) -> float:
    return json.loads((fold / "metrics.json").read_text())["log_loss"]


def begin(folder: Path, run: Path, *overrides: str) -> Path:
    """A run that hardly learns, so that it keeps the weights it began with."""
    train(folder, f"model.from_run={run}", "fold=0", "fit.learning_rate=1e-12", *overrides)
    return folder / "lmsys" / "tiny" / "fold0"


def test_it_begins_with_the_weights_and_the_tokenizer_of_the_same_fold(whole, tmp_path, capsys):
    fold = begin(tmp_path, whole)
    assert f"starts at {whole / 'fold0'}" in capsys.readouterr().out.splitlines()
    before, after = (load_file(one / "model" / "model.safetensors") for one in (whole / "fold0", fold))
    assert before.keys() == after.keys()
    assert max((before[name] - after[name]).abs().max() for name in before) < 1e-6
    assert loss(fold) == pytest.approx(loss(whole / "fold0"), abs=1e-4)
    assert len(predict(tmp_path, f"run={fold.parent}"))


def test_it_begins_with_the_adapter(adapted, base_dir, tmp_path):
    fold = begin(tmp_path, adapted, f"model.name_or_path={base_dir}", *ADAPTER)
    assert loss(fold) == pytest.approx(loss(adapted / "fold0"), abs=1e-4)
    assert len(predict(tmp_path, f"run={fold.parent}"))


def test_a_run_that_learnt_held_out_rows_is_refused(whole, tmp_path):
    with pytest.raises(UserError, match=r"fold0 has learnt 24 of the 24 rows that are held out here; .* has fold 1"):
        train(tmp_path, f"model.from_run={whole}", "fold=1")
    assert not list(tmp_path.iterdir())


def test_a_run_of_other_files_says_what_is_not_known(whole, tmp_path, capsys):
    metrics = whole / "fold0" / "metrics.json"
    kept = metrics.read_text()
    metrics.write_text(json.dumps(json.loads(kept) | {"dataset": "others"}))
    try:
        train(tmp_path, f"model.from_run={whole}", "fold=1")
    finally:
        metrics.write_text(kept)
    assert "of other files (lmsys, others): it is not known whether" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epochs=0"], "model.from_run is where a training begins"),
        (["model.name_or_path=other"], r"was trained on another base \(scratch\) than other; leave it out"),
        (["model.name_or_path=other", *ADAPTER], "saved whole weights, other ones in each fold, on which an adapter"),
    ],
)
def test_what_does_not_fit_whole_weights_is_refused(whole, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, f"model.from_run={whole}", "fold=0", *overrides)


def test_what_does_not_fit_an_adapter_is_refused(adapted, whole, base_dir, tmp_path):
    start = (f"model.from_run={adapted}", "fold=0")
    with pytest.raises(UserError, match="saved an adapter; add adapter=lora and the model it was trained on"):
        train(tmp_path, *start, f"model.name_or_path={base_dir}")
    with pytest.raises(UserError, match=r"has another adapter \(adapter.r: 4 -> 2\); give the run's own settings"):
        train(tmp_path, *start, f"model.name_or_path={base_dir}", *ADAPTER, "adapter.r=2")
    with pytest.raises(UserError, match=r"was trained on .*, whose weights.* are not those of .* model.name_or_path="):
        train(tmp_path, *start, f"model.name_or_path={whole / 'fold0' / 'model'}", *ADAPTER)


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no finished fold; train one first"):
        train(tmp_path, f"model.from_run={tmp_path / 'nowhere'}", "fold=0")
