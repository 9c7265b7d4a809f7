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


@pytest.mark.slow
def test_a_classification_layer_goes_on_with_its_labels_and_is_refused_with_others(base_dir, tmp_path):
    layer = (f"model.name_or_path={base_dir}", "head=classification", "fold=0")
    train(tmp_path / "first", *layer)
    run = tmp_path / "first" / "lmsys" / "tiny"
    fold = begin(tmp_path / "second", run, "head=classification")
    assert loss(fold) == pytest.approx(loss(run / "fold0"), abs=1e-4)
    with pytest.raises(UserError, match="has a layer for A, B, tie in this order; give the same labels"):
        train(tmp_path, f"model.from_run={run}", *layer, 'prompt.labels=["x","y","z"]')


def reward_model(base_dir: Path, folder: Path, num_labels: int, is_tied: bool = True) -> Path:
    """A reward model on the body of a small pretrained one."""
    import transformers

    options = {"num_labels": num_labels, "tie_word_embeddings": is_tied}
    config = transformers.AutoConfig.from_pretrained(base_dir, **options)
    transformers.AutoModelForSequenceClassification.from_pretrained(base_dir, config=config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base_dir).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("head", "num_labels"),
    [("label", 1), pytest.param("classification", 1, marks=pytest.mark.slow), ("classification", 3)],
)
def test_a_reward_models_body_is_used_and_its_layer_left_out(base_dir, tmp_path, capsys, head, num_labels):
    reward = reward_model(base_dir, tmp_path / "reward", num_labels)
    train(tmp_path, f"model.name_or_path={reward}", "fold=0", f"head={head}", "fit.learning_rate=1e-12")
    said = f"{reward} is a classifier or reward model: its body is used, and its layer is left out"
    assert said in capsys.readouterr().out.splitlines()
    after = load_file(tmp_path / "lmsys/tiny/fold0/model/model.safetensors")
    before = load_file(reward / "model.safetensors")
    body = [name for name in before if name.startswith("model.")]
    assert max((before[name] - after[name]).abs().max() for name in body) < 1e-6
    assert ("score.weight" in after) == (head == "classification")
    if "score.weight" in after:
        assert after["score.weight"].shape == (3, 64)
        assert (after["score.weight"] - before["score.weight"]).abs().max() > 0.01
    assert len(predict(tmp_path, f"run={tmp_path / 'lmsys/tiny'}"))


def test_a_reward_model_without_tied_embeddings_cannot_score_words(base_dir, tmp_path):
    reward = reward_model(base_dir, tmp_path / "reward", 1, is_tied=False)
    with pytest.raises(UserError, match="is a classifier without an output head for words; use head=classification"):
        train(tmp_path, f"model.name_or_path={reward}", "fold=0")
