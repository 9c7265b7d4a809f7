"""Runs with head=probe are like any other: scored, saved, loaded, and refused where a setting has no use."""

import json

import numpy as np
import pandas as pd
import pytest

from nexttoken.build import build
from nexttoken.engine import hidden_states
from nexttoken.errors import UserError
from nexttoken.runs.load import load_run
from support.composed import composed
from support.training import train

SMALL = ("head=probe", "head.answer_tokens=96", "logger=none", "trainer.accelerator=cpu")
PROBS = ["winner_model_a", "winner_model_b", "winner_tie"]


def test_a_run_is_saved_loaded_and_asked_again(base_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "cache"))
    train(tmp_path, "fold=0", f"model.name_or_path={base_dir}", *SMALL)
    fold = tmp_path / "lmsys" / "tiny" / "fold0"
    metrics = json.loads((fold / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["trained"]
    assert "probe.safetensors" in metrics["sealed"]

    def refuse(*_):
        raise AssertionError("a text was read twice")

    monkeypatch.setattr(hidden_states, "states_after", refuse)
    train(tmp_path, "fold=0", "name=again", "seed=1", f"model.name_or_path={base_dir}", *SMALL)
    saved = pd.read_csv(fold / "oof.csv", dtype={"id": str})
    run = load_run(fold.parent)
    predictions = run.answer(run.held_out(run.fold(0)))
    assert list(predictions.ids) == saved["id"].tolist()
    np.testing.assert_allclose(predictions.probs, saved[PROBS].to_numpy(), atol=1e-6)
    (fold / "probe.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"probe\.safetensors was changed"):
        load_run(fold.parent).answer(run.held_out(run.fold(0)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=scratch", "give a pretrained one"),
        ("adapter=lora", "use adapter=none"),
        ("trainer.max_epochs=0", "without trainer.max_epochs=0"),
        ("transforms=counts", "head.counts=true"),
        ("inference=few_shot", "use inference=once"),
        ("correction=content_free", "use correction=none"),
        ("max_tokens=auto", "give a number"),
        ("fit.ema=0.9", "fit.ema"),
    ],
)
def test_settings_without_use_are_refused_in_one_line(override, message):
    with pytest.raises(UserError) as caught:
        build(composed("model=smollm2", "head=probe", "trainer.max_epochs=1", override) | {"name": "x"})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["task=banking77", "task=jcommonsenseqa"])
def test_other_label_tasks_take_a_probe(task):
    parts = build(composed("model=smollm2", "head=probe", task) | {"name": "x"})
    assert parts.reads_states
