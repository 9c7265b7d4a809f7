"""QLoRA through the whole pipeline: train, save the adapter, answer from it again, and refuse what does not belong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.errors import UserError
from nexttoken.models import load
from nexttoken.pipeline import train as train_fold
from nexttoken.runs.load import load_run
from nexttoken.tasks.preference import Preference
from support.composed import config_of
from support.finished_runs import unseal
from support.training import SAMPLE

SMALL = (
    *(f"input_dir={SAMPLE}", "limit_rows=24", "max_tokens=160"),
    *("trainer.max_epochs=1", "fit=finetune", "fit.batch_size=8", "adapter=lora"),
)


def train(tmp_path: Path, base_dir: Path, *overrides: str, name: str = "qlora") -> Path:
    places = (f"model.name_or_path={base_dir}", f"output_dir={tmp_path}", f"name={name}", "fit.learning_rate=0.01")
    train_fold(config_of("train", *places, *SMALL, *overrides))
    return tmp_path / "lmsys" / name


@pytest.fixture(scope="module")
def qlora_run(base_dir, tmp_path_factory) -> Path:
    """A QLoRA fold trained by the whole pipeline."""
    return train(tmp_path_factory.mktemp("runs"), base_dir, "quantization=nf4")


def test_train_then_predict_from_the_saved_adapter_gives_the_same(qlora_run, repository):
    """The out-of-fold probabilities were computed by the trained model; these by base + saved adapter."""
    oof = pd.read_csv(qlora_run / "fold0" / "oof.csv", dtype={"id": str})
    frame = pd.read_csv(SAMPLE / "train.csv", dtype=str, keep_default_na=False)
    held_out = frame.set_index("id").loc[oof["id"]].reset_index()
    again = load_run(qlora_run).predict(held_out.drop(columns=[c for c in held_out if c.startswith("winner")]))
    assert again["id"].tolist() == oof["id"].tolist()
    np.testing.assert_allclose(again.iloc[:, 1:], oof.iloc[:, -3:], atol=1e-5)


def test_a_fold_keeps_the_adapter_and_never_the_base(qlora_run, base_dir):
    fold = qlora_run / "fold0"
    assert not (fold / "model").exists()
    assert sorted(path.name for path in (fold / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    ]
    trained = json.loads((fold / "metrics.json").read_text())
    assert trained["num_trainable"] * 4 < (fold / "adapter/adapter_model.safetensors").stat().st_size
    state = torch.load(fold / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all("lora_" in name for name in state)
    assert sum(value.numel() for value in state.values()) == trained["num_trainable"]


def test_another_base_is_refused_and_a_copy_of_it_is_not(qlora_run, base_dir, tmp_path):
    frame_path = "input/sample-preferences"
    copied = tmp_path / "copy"
    shutil.copytree(base_dir, copied)
    assert len(load_run(qlora_run, base=str(copied)).answer(examples(frame_path)).ids) == 5
    other = tmp_path / "other"
    shutil.copytree(base_dir, other)
    weights = load_file(other / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] + 0.01}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="whose weights are not those of"):
        load_run(qlora_run, base=str(other)).answer(examples(frame_path))


def examples(input_dir: str) -> list:
    return Preference(input_dir).read("test")[:5]


def test_another_label_set_is_refused(qlora_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(qlora_run, run)
    config = run / "fold0" / "config.yaml"
    text = config.read_text()
    assert text.count("- tie\n") == 1
    config.write_text(text.replace("- tie\n", "- neither\n"))
    unseal(run / "fold0")
    with pytest.raises(UserError, match=r"trained on labels \['A', 'B', 'tie'\], not \['A', 'B', 'neither'\]"):
        load_run(run).answer(examples("input/sample-preferences"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["quantization=int8", "head=vocabulary"],
        ["quantization=nf4", "head=classification", "fit.optimizer=paged_adamw_8bit"],
        ["adapter.target_modules=[q_proj,v_proj]", "adapter.rslora=true", "fit.gradient_checkpointing=true"],
        ["quantization=nf4", "adapter.init=loftq", "fit.neftune_alpha=5", "fit.optimizer=adamw_8bit"],
        ["quantization=nf4", "trainer.max_epochs=0"],
    ],
    ids=" ".join,
)
def test_every_way_of_adapting_trains_and_answers_again(base_dir, tmp_path, overrides):
    run = train(tmp_path, base_dir, *overrides)
    probs = load_run(run).answer(examples("input/sample-preferences")).probs
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-9)


@pytest.mark.slow
def test_checkpointing_activations_changes_no_weight(base_dir, tmp_path):
    saved = []
    for name, on in (("plain", False), ("checkpointed", True)):
        run = train(tmp_path, base_dir, f"fit.gradient_checkpointing={on}", name=name)
        saved.append(load_file(run / "fold0/adapter/adapter_model.safetensors"))
    plain, checkpointed = saved
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name], atol=1e-6, rtol=0)


def test_a_run_predicts_in_the_dtype_that_it_was_scored_in(base_dir, tmp_path, repository, monkeypatch):
    """Scored where 16-bit products are faster, asked where they are not; a run that does not say it was in float32."""
    if torch.cuda.is_available():
        pytest.skip("the dtype of a CPU is that of machines without a GPU")
    monkeypatch.setattr(load, "MIN_16_BIT", 0)
    monkeypatch.setattr(load, "fast_cpu_dtype", lambda width: torch.bfloat16)
    run = train(tmp_path, base_dir, name="half")
    fold = run / "fold0"
    assert json.loads((fold / "metrics.json").read_text())["precision"] == "bfloat16"
    monkeypatch.setattr(load, "fast_cpu_dtype", lambda width: torch.float32)
    oof = pd.read_csv(fold / "oof.csv", dtype={"id": str})
    frame = pd.read_csv(SAMPLE / "train.csv", dtype=str, keep_default_na=False)
    rows = frame.set_index("id").loc[oof["id"]].reset_index()
    rows = rows.drop(columns=[name for name in rows if name.startswith("winner")])
    np.testing.assert_allclose(load_run(run).predict(rows).iloc[:, 1:], oof.iloc[:, -3:], atol=1e-6)
    named = json.loads((fold / "adapter" / "base.json").read_text())
    assert named.pop("dtype") == "bfloat16"
    (fold / "adapter" / "base.json").write_text(json.dumps(named))
    unseal(fold)
    difference = np.abs(load_run(run).predict(rows).iloc[:, 1:].to_numpy() - oof.iloc[:, -3:].to_numpy()).max()
    assert 1e-6 < difference < 0.05
