"""The dev rows choose how long to train; then the model is trained anew, for as long, on train and dev rows."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from nexttoken import pipeline
from nexttoken.build import prepare
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_loss, prior_probs
from nexttoken.progress import Deadline
from nexttoken.prompts import Prompt
from nexttoken.training.dev_metric import LOG_LOSS
from nexttoken.training.learner import Learner
from nexttoken.training.time_budget import TimeBudget
from nexttoken.types import Example
from support.composed import settings
from support.training import TINY, composed, train

PROMPT = Prompt("{{ text[0] }}\n", "It is ", ("even", "odd"))
ROWS = [Example(str(n), {"text": (f"number {n % 8}",)}, label=n % 2) for n in range(40)]
STEADY = ("fit=finetune", "fit.batch_size=5", "fit.learning_rate=1e-3", "fit.decay=constant", "fit.warmup_fraction=0")


def learner(tmp_path, base_dir, train_rows, dev, whole, *overrides):
    given = settings(f"model.name_or_path={base_dir}", "max_tokens=64", "logger=none", *STEADY, *overrides)
    return Learner.load(given, LabelSoftmax(), PROMPT, train_rows, dev, tmp_path, whole)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_second_training_equals_one_of_that_length_on_all_rows(base_dir, tmp_path):
    chosen = {}
    both = learner(tmp_path / "refit", base_dir, ROWS[:20], ROWS[20:], ROWS, "trainer.max_epochs=2")
    _, measured = both.learn(tmp_path / "refit", [], lambda answerer: chosen.update(weights(answerer.model)))
    assert (measured["best_step"], measured["best_epoch"], measured["refit_steps"]) == (8, 2, 8)
    assert measured["num_train_rows"] == 40
    alone = learner(tmp_path / "alone", base_dir, ROWS, [], [], "trainer.max_epochs=1")
    alone.learn(tmp_path / "alone", [])
    for name, tensor in alone.model.state_dict().items():
        torch.testing.assert_close(both.model.state_dict()[name], tensor)
    best = torch.load(tmp_path / "refit/checkpoints/best.ckpt", weights_only=True)
    for name, tensor in best.items():  # what inference may learn from the dev rows is learnt with these
        torch.testing.assert_close(chosen[name.removeprefix("model.")], tensor)
    assert any(not torch.equal(chosen[name], tensor) for name, tensor in both.model.state_dict().items())


def test_a_second_training_that_time_makes_too_short_leaves_the_chosen_weights(base_dir, tmp_path, monkeypatch):
    budget = TimeBudget(Deadline(600), 0)
    monkeypatch.setattr(TimeBudget, "steps_in_time", lambda self, done, *_: 100 if _[-1] else done)
    both = learner(tmp_path, base_dir, ROWS[:20], ROWS[20:], ROWS, "trainer.max_epochs=5")
    _, measured = both.learn(tmp_path, [], lambda _: None, LOG_LOSS, budget)
    assert measured["best_step"] > 10
    assert "refit_steps" not in measured
    assert measured["num_train_rows"] == 20
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    for name, tensor in best.items():
        torch.testing.assert_close(both.model.state_dict()[name.removeprefix("model.")], tensor)


def test_the_curve_and_the_metrics_tell_both_trainings(tmp_path):
    loss = train(tmp_path, "fold=0", "trainer.max_epochs=3", "logger=none", "fit.batch_size=2")
    fold = tmp_path / "lmsys/tiny/fold0"
    saved, curve = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "curve.csv")
    dev = curve.dropna(subset="dev_log_loss")
    best = dev.loc[dev["dev_log_loss"].idxmin()]
    assert loss == saved["dev_log_loss"] == pytest.approx(best["dev_log_loss"])
    assert (saved["best_step"], saved["best_epoch"]) == (best["step"], best["epoch"] + 1)
    assert not dev["refit"].any()
    refit = curve[curve["refit"] == 1]
    assert refit["step"].tolist() == list(range(10, saved["refit_steps"] + 1, 10))
    assert refit["train_loss"].notna().all()
    assert saved["num_train_rows"] == 2 * 48  # both orders of 24 train and 24 dev rows
    assert saved["refit_steps"] == saved["best_step"]
    chosen = rows("fold=0", "trainer.max_epochs=3", "limit_rows=24")
    seen, held_out = (np.array([one.label for one in some]) for some in (chosen.learnt, chosen.held_out))
    prior = prior_probs(seen, 3, [3] * len(held_out))  # the reference has seen all 48
    assert saved["prior_log_loss"] == pytest.approx(log_loss(prior, held_out))


def rows(*overrides):
    parts, _ = prepare(composed("train", *TINY, "limit_rows=null", *overrides), [])
    examples = pipeline.read(parts, "train")
    return pipeline.choose_rows(parts, examples, pipeline.split(parts, examples))


GATE = ("task=quiz", "input_dir=input/sample-quiz", "retriever=bm25", "inference=gated_retrieval")


@pytest.mark.parametrize(
    ("overrides", "has_dev", "refits"),
    [
        (["trainer.max_epochs=1"], False, False),
        (["trainer.max_epochs=0"], False, False),
        (["trainer.max_epochs=2"], True, True),
        (["trainer.max_epochs=2", "split.dev_fraction=0"], False, False),
        (["trainer.max_epochs=2", "fit.refit=false"], True, False),
        (["trainer.max_epochs=1", "fit.refit=false"], True, False),
        ([*GATE, "trainer.max_epochs=1"], True, False),  # the gate's temperature is learnt from them
        ([*GATE, "trainer.max_epochs=2"], True, True),
    ],
)
def test_rows_are_withheld_only_where_they_choose_something(repository, monkeypatch, overrides, has_dev, refits):
    monkeypatch.chdir(repository)
    chosen = rows(*overrides)
    assert (bool(chosen.dev), chosen.refits) == (has_dev, refits)
    assert not {one.id for one in chosen.learnt} & {one.id for one in chosen.held_out}
    assert len(chosen.learnt) == len(chosen.train) + (len(chosen.dev) if refits else 0)


@pytest.mark.parametrize("packs", [True, False])
def test_rows_that_are_padded_are_said(base_dir, tmp_path, capsys, packs):
    """Positions of Bloom are in its scores of attention, so that its rows cannot be packed."""
    folder = base_dir
    if not packs:
        folder = tmp_path / "bloom"
        tokenizer = AutoTokenizer.from_pretrained(base_dir)
        tokenizer.save_pretrained(folder)
        config = BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2)
        BloomForCausalLM(config).save_pretrained(folder)
    learner(tmp_path, folder, ROWS[:8], [], [], "trainer.max_epochs=1").learn(tmp_path, [])
    assert ("rows are padded to the longest of a batch" in capsys.readouterr().out) != packs


def test_the_rows_of_a_fold_can_be_left_out():
    """For the teachers of a student that is scored on these rows."""
    every, left = rows("fold=0"), rows("fold=0", "without_fold=2")
    third = {one.id for one in rows("fold=2").held_out}
    assert {one.id for one in left.held_out} == {one.id for one in every.held_out}
    assert {one.id for one in (*left.train, *left.dev)} == {one.id for one in (*every.train, *every.dev)} - third
    with pytest.raises(UserError, match="fold=2 is scored on the rows that without_fold=2 leaves out"):
        rows("fold=2", "without_fold=2")
