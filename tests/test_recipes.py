"""The recipe of training follows what is loaded, and every number of it can be overridden."""

import pytest
from transformers import AutoConfig

from nexttoken.models.load import estimate_parameters, resolve
from support.composed import composed, settings

PRETRAINED, LORA = "model.name_or_path=some/model", ("model=qwen2_5_7b", "adapter=lora")


@pytest.mark.parametrize(
    ("loaded", "recipe"),
    [((), "scratch"), ((PRETRAINED,), "finetune"), (("model=gemma2_9b",), "finetune"), (LORA, "lora")],
)
def test_the_recipe_follows_what_is_loaded(loaded, recipe):
    assert composed(*loaded)["fit"] == composed(*loaded, f"fit={recipe}")["fit"]


@pytest.mark.parametrize("order", [1, -1])
def test_lora_has_its_own_rate_length_and_warm_up(order):
    given = settings(*LORA[::order])
    assert (given.fit.learning_rate, given.fit.warmup_fraction, given.trainer.max_epochs) == (1e-4, 0.05, 2)
    assert given.fit.gradient_checkpointing == "auto"
    assert settings(*LORA, "fit.learning_rate=3e-4", "trainer.max_epochs=1").fit.learning_rate == 3e-4


@pytest.mark.parametrize(("rate", "alpha"), [(1e-3, 4), (2e-4, 4), (1e-4, 20), (6e-5, 64), (2e-5, 192), (1e-6, 192)])
def test_alpha_follows_the_learning_rate(rate, alpha):
    assert settings(*LORA, f"fit.learning_rate={rate}").adapter.alpha == alpha
    assert settings(*LORA, f"fit.learning_rate={rate}", "adapter.alpha=32").adapter.alpha == 32


def test_the_experiments_of_the_competition_are_qlora():
    for name in ("lmsys_conversation", "lmsys_gemma2_9b_qlora"):
        given = settings(f"experiment={name}")
        assert given.quantization.bits == 4
        assert 16 <= given.adapter.alpha <= 24
        assert (given.fit.learning_rate, given.fit.gradient_checkpointing) == (1e-4, True)


@pytest.mark.parametrize(("layers", "checkpoints"), [(2, False), (40, True)])
def test_large_models_compute_activations_again(layers, checkpoints):
    config = AutoConfig.for_model("llama", hidden_size=2048, num_hidden_layers=layers, intermediate_size=5632)
    assert (estimate_parameters(config) >= 1e9) == checkpoints
    assert resolve(settings(*LORA), config).settings.fit.gradient_checkpointing == checkpoints


def test_only_a_task_with_pairs_is_trained_in_both_orders():
    assert list(composed()["train_transforms"]) == ["both_orders"]
    assert composed("train_transforms=none")["train_transforms"] == {}
    assert "both_orders" not in composed("task=quiz")["train_transforms"]
    assert composed("~task")["train_transforms"] == {}  # as for a task of one's own
