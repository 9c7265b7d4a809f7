"""Trainings and predictions sized on paper: operations, memory and exchange against figures computed by hand."""

from dataclasses import replace
from functools import cache

import pytest

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import SHEETS
from nexttoken.runs.forecasts.forecast import ACHIEVED, ROW_SECONDS
from nexttoken.runs.forecasts.on_paper import EXCHANGE_SHARE, OnPaper, Sizes, size_up
from support.commands import refusal, status_of
from support.composed import settings

ROWS, TOKENS = 1_000_000, 500
LAYERS = 30 * (2 * 576 * 64 * (9 + 3) + 3 * 576 * 1536)  # weights of SmolLM2-135M without embeddings and norms
FORWARD = ROWS * TOKENS * (2 * LAYERS + 2 * 30 * 576 * TOKENS)
H100 = SHEETS["h100"]
LORA = ("model=smollm2_135m", "adapter=lora", "trainer.max_epochs=2", "split.dev_fraction=0.1")
WHOLE = ("model=smollm2_135m", "trainer.max_epochs=1", "fit.refit=false", "fit.gradient_checkpointing=false")


@cache  # a plan takes a second
def on_paper(*overrides: str, free: int = H100.free) -> OnPaper:
    return OnPaper.of(settings(*overrides), replace(H100, free=free), Sizes(ROWS, TOKENS))


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        (WHOLE, 3),
        ((*WHOLE, "fit.gradient_checkpointing=true"), 4),
        ((*LORA, "fit.gradient_checkpointing=false"), 2 * (2 - 0.1) * 2),  # refit, and frozen weights
        ((*LORA, "trainer.max_epochs=0"), 1),
    ],
)
def test_operations_are_those_of_the_passes(overrides, times):
    assert on_paper(*overrides).operations == pytest.approx(times * FORWARD, rel=0.01)


def test_gpus_divide_the_products_until_a_step_has_no_rows_for_them():
    work = on_paper(*WHOLE)
    one, eight, many = (work.size(gpus) for gpus in (1, 8, 64))
    assert (one.strategy, eight.strategy) == ("", "ddp")
    assert one.limit == "rows in one process"  # the model is small for the GPU
    assert OnPaper.of(work.spec.settings, SHEETS["t4"], work.sizes).size(1).limit == "products"
    products = 3 * FORWARD / (989e12 * ACHIEVED[1])
    assert one.seconds[0] - eight.seconds[0] == pytest.approx(products * 7 / 8, rel=0.01)
    assert many.limit == "fit.batch_size: 48 GPUs without rows"
    assert many.seconds == work.size(16).seconds
    assert work.predicting.size(64).limit == "rows in one process"
    assert work.predicting.size(64).seconds[1] > ROWS * ROW_SECONDS[1]


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_sharded_where_train_py_can():
    whole = on_paper(*WHOLE).plan
    activations, states = whole.size("activations"), whole.needed - whole.size("activations")
    work = on_paper(*WHOLE, free=activations + states // 2)
    alone, eight = work.size(1), work.size(8)
    assert (alone.seconds, alone.limit.startswith("memory: ")) == (None, True)
    assert eight.strategy == "fsdp"
    assert activations + states // 8 < eight.memory < activations + states // 2
    assert eight.link > 0
    assert on_paper(*WHOLE, "fit.optimizer=adamw_8bit", free=2**20).size(8).seconds is None
    assert on_paper(*LORA, "quantization=nf4", free=2**20).size(8).strategy == "ddp"


def test_the_link_carries_both_ways_of_the_gradients_in_a_tenth_of_a_step():
    work = on_paper(*WHOLE)
    gradients = work.plan.size("gradients")
    step = 3 * FORWARD / (ROWS / 16) / (8 * 989e12 * ACHIEVED[1])
    assert work.size(8).link == pytest.approx(2 * gradients * 7 / 8 / (EXCHANGE_SHARE * step) / 1e9, rel=0.01)
    assert work.size(1).link == 0
    assert work.predicting.size(8).link == 0


def test_weights_that_were_all_trained_predict_in_float32_and_an_adapter_on_16_bit():
    all_trained, adapted = on_paper(*WHOLE).predicting.plan, on_paper(*LORA).predicting.plan
    assert all_trained.size("weights") == 2 * adapted.size("weights")


def test_without_epochs_there_is_no_training():
    found, assumed = size_up(settings(*LORA, "trainer.max_epochs=0"), H100, Sizes(10, 100), (1, 2))
    assert [(one.work, one.gpus) for one in found] == [("prediction", 1), ("prediction", 2)]
    assert not any("fit.batch_size" in line for line in assumed)


def test_longer_rows_than_max_tokens_are_refused():
    with pytest.raises(UserError, match=r"tokens=500 is more than max_tokens=256; raise max_tokens"):
        on_paper(*LORA, "max_tokens=256")


@pytest.mark.slow
def test_the_command_shows_the_cost_of_a_given_price_alone(capsys):
    shown = []
    for price in ([], ["price=2.5"]):
        arguments = [
            "model=smollm2_135m",
            "adapter=lora",
            "rows=60000",
            "tokens=500",
            "device=h100",
            "gpus=1,8",
            *price,
        ]
        assert status_of("forecast", arguments) == 0
        shown.append(capsys.readouterr().out)
    assert "cost" not in shown[0]
    assert "| training, 8 GPUs, ddp " in shown[0]
    assert "prediction, 1 GPU " in shown[0]
    header, _, first, *_ = [line.split("|") for line in shown[1].splitlines() if line.startswith("|")]
    hours, cost = (first[header.index(name)] for name in _named(header, "GPU hours", "cost"))
    assert float(cost.split()[2]) == pytest.approx(2.5 * float(hours.split()[2]), abs=0.2)


def _named(header: list[str], *names: str) -> list[str]:
    return [next(cell for cell in header if cell.strip() == name) for name in names]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected run=output/<task>/<name>, a finished run, or model=... on paper"),
        (["model=llama3_8b", "rows=10"], "tokens= is missing"),
        (["model=llama3_8b", "rows=10", "tokens=10"], "device=this has no data sheet"),
        (["run=output/lmsys/x", "price=2"], "price= is for model=... on paper"),
        (["run=output/lmsys/x", "adapter=lora"], "adapter= is for model=... on paper"),
        (["model=llama3_8b", "rows=10", "tokens=10", "device=h100", "price=inf"], "price='inf' is not accepted"),
        (["model=lama3_8b", "rows=10", "tokens=10", "device=h100"], "did you mean 'llama3_8b'?"),
        (["model=llama3_8b", "rows=10", "tokens=10", "device=h100", "gpus=1,x"], "is not accepted"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, words):
    assert words in refusal(capsys, "forecast", *arguments)
