"""The moving average of the weights: its numbers, and that it is scored and saved in their place."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nexttoken.data.contradictions import contradictions
from nexttoken.training.averages import WeightAverage
from support.composed import settings
from support.training import train


def test_the_average_counts_steps_as_stated():
    layer, decay = nn.Linear(3, 2), 0.5
    layer.bias.requires_grad_(False)
    average, expected = WeightAverage.of(layer, decay), layer.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            layer.weight.copy_(torch.randn(2, 3))
        average.update(layer)
        share = max(1 - decay, 9 / (10 + step))
        expected = (1 - share) * expected + share * layer.weight.detach()
    torch.testing.assert_close(average.weights["weight"], expected)
    assert average.weights.keys() == {"weight"}  # nothing is kept of frozen weights


def test_two_exchanges_change_nothing():
    layer = nn.Linear(3, 2)
    weight, parameter = layer.weight.detach().clone(), layer.weight
    average = WeightAverage(0.9, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, num_steps=4)
    average.swap(layer)
    assert (layer.weight == 1).all()
    assert layer.weight is parameter  # copies of the model that share it see the average, too
    average.swap(layer)
    assert torch.equal(layer.weight, weight)
    assert (average.weights["weight"] == 1).all()


def saved(folder, *overrides):
    train(folder, "fold=0", "logger=none", "split.dev_fraction=0", "fit.batch_size=4", *overrides)
    fold = folder / "lmsys" / "tiny" / "fold0"
    last = torch.load(fold / "checkpoints" / "last.ckpt", weights_only=True)
    return load_file(fold / "model" / "model.safetensors"), last


def test_the_average_is_saved_and_the_training_itself_is_the_same(tmp_path):
    averaged, last = saved(tmp_path / "averaged", "fit.ema=0.99")
    plain, _ = saved(tmp_path / "plain")
    kept = {name.removeprefix("model."): tensor for name, tensor in last["average"]["weights"].items()}
    raw = {name.removeprefix("model."): tensor for name, tensor in last["state_dict"].items()}
    assert averaged.keys() == plain.keys()
    for name in averaged:
        torch.testing.assert_close(averaged[name], kept[name])
        torch.testing.assert_close(plain[name], raw[name])
    assert max((averaged[name] - plain[name]).abs().max() for name in plain) > 1e-4


def test_the_average_is_scored_on_the_dev_rows(tmp_path):
    curves = []
    for name, ema in (("plain", 0), ("averaged", 0.999)):
        train(
            tmp_path / name, "fold=0", "logger=none", "trainer.max_epochs=2", f"fit.ema={ema}", "fit.learning_rate=0.01"
        )
        curves.append(pd.read_csv(tmp_path / name / "lmsys/tiny/fold0/curve.csv")["dev_log_loss"].dropna())
    assert len(curves[0]) == len(curves[1]) == 2
    assert abs(curves[0] - curves[1]).max() > 1e-4


def test_a_sharded_model_has_no_average():
    given = settings("fit.ema=0.9", "trainer.strategy=fsdp", "trainer.devices=2")
    assert any("fit.ema keeps a second copy" in line for line in contradictions(given))


@pytest.mark.parametrize("value", ["1", "-0.1"])
def test_a_decay_outside_of_its_range_is_refused(value):
    with pytest.raises(Exception, match=r"fit\.ema"):
        settings(f"fit.ema={value}")
