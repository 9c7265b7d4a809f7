"""Forecasts: a trial of a small run that grows with the rows, and on a sheet the operations of the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import SHEETS
from nexttoken.runs.forecasts import run_forecast
from nexttoken.runs.forecasts.forecast import (
    ACHIEVED,
    READ_RATES,
    ROW_SECONDS,
    START_SECONDS,
    Forecast,
    operations_per_token,
)
from nexttoken.runs.forecasts.run_forecast import forecast
from nexttoken.runs.forecasts.trial_rows import count_tokens, reworded, spread
from nexttoken.types import Example
from support.commands import refusal, status_of
from support.composed import composed
from support.finished_runs import write_finished_fold
from support.training import SAMPLE, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "fold=0", "logger=none")
    return folder / "lmsys" / "tiny"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(run_forecast, "TRIAL_SECONDS", 0.5)
    monkeypatch.setattr(run_forecast, "MAX_ROWS", 200)


def test_a_trial_grows_with_the_rows_and_leaves_the_run_as_it_is(tiny, capsys):
    before = sorted(tiny.rglob("*"))
    few, many = forecast(tiny, 1000), forecast(tiny, 100_000)
    assert few.seconds[0] < few.seconds[1]
    assert sum(many.seconds) > 10 * sum(few.seconds)
    assert few.memory > 0
    read = [path for path in (tiny / "fold0").rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    assert few.disk == sum(path.stat().st_size for path in read)
    assert "1,000 rows as long as the train rows" in few.assumed[0]  # the test file has 40
    assert sorted(tiny.rglob("*")) == before
    assert "gate" not in capsys.readouterr().out


def test_a_run_is_forecast_on_two_gpus_in_half_of_the_work(tiny):
    one, two = (forecast(tiny, 10_000_000, SHEETS[name]) for name in ("t4", "t4x2"))
    fixed = START_SECONDS + 10_000_000 * ROW_SECONDS[0]
    assert (one.seconds[0] - fixed) == pytest.approx(2 * (two.seconds[0] - fixed), rel=0.01)
    assert (one.memory, one.disk) == (two.memory, two.disk)


def test_a_model_that_is_not_here_is_forecast_by_its_published_dimensions(tmp_path, capsys):
    model = composed("model=gemma2_9b")["model"]
    quantized = {"quantization": composed("quantization=nf4")["quantization"]}
    other = {
        "model": model,
        "input_dir": str(SAMPLE),
        "trainer": composed("trainer.max_epochs=0")["trainer"],
    } | quantized
    task = composed()["task"] | {"input_dir": str(SAMPLE)}
    fold = write_finished_fold(tmp_path / "a", **other, task=task, batch_tokens=2048, max_tokens=2048)
    saved = json.loads((fold / "metrics.json").read_text())
    (fold / "metrics.json").write_text(json.dumps(saved | {"num_prompt_tokens": 12 * 1000}))
    found = forecast(tmp_path / "a", 25_000, SHEETS["t4x2"])
    weights = 9_241_705_984 - 256_000 * 3584 - (42 * 4 + 1) * 3584  # published, without embeddings and norms
    work = 25_000 * 1000 * 2 * weights / (130e12 * ACHIEVED[1])
    assert work < found.seconds[0] < 1.1 * work + START_SECONDS + 9e9 / READ_RATES[1]
    assert found.seconds[1] > found.seconds[0] * ACHIEVED[1] / ACHIEVED[0] / 1.2
    assert 6 * 2**30 < found.memory < 12 * 2**30
    assert found.disk == pytest.approx(2 * 9.24e9, rel=0.01)
    assert any("1000 tokens each as the held-out rows were asked, 1 models" in line for line in found.assumed)
    assert any("65 TFLOP/s in float16" in line and "not measured" in line for line in found.assumed)


def test_operations_are_those_that_torch_counts():
    config = LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    config._attn_implementation = "eager"  # whose products torch counts
    body = LlamaForCausalLM(config).model
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        body(input_ids=torch.zeros((1, 96), dtype=torch.long), use_cache=False)
    whole_attention = 96 * 3 * 2 * 64 * 96  # torch counts both halves of the causal square
    assert counted.get_total_flops() == 96 * operations_per_token(config, 96) + whole_attention


def test_blends_add_up():
    both = Forecast((1.0, 2.0), 10, 5, assumed=("a",)) + Forecast((3.0, 5.0), 7, 6, assumed=("b",))
    assert both == Forecast((4.0, 7.0), 10, 11, assumed=("a", "b"))


def test_trial_rows_have_all_lengths_and_words_that_no_cache_knows():
    examples = [Example(str(n), {"text": ("word " * n + "end",)}) for n in range(1, 101)]
    tokens = count_tokens(examples, None, 10_000)
    assert np.mean([tokens[place] for place in spread(tokens, 10)]) == pytest.approx(tokens.mean(), rel=0.02)
    assert len(spread(tokens, 250)) == 250
    once, four = reworded(examples[4], 1), Example("4", {"text": ("first a b c d last",)})
    assert once.id == "5 1"
    for turn in range(12):
        changed = reworded(four, turn).fields["text"][0]
        assert changed.startswith("first ")
        assert changed.endswith(" last")
        assert sorted(changed.split(" ")) == sorted(four.fields["text"][0].split(" ")) != changed.split(" ")
        assert changed != four.fields["text"][0]
    assert reworded(Example("1", {"text": ("one two", "one")}), 1).fields["text"] == ("two one", "one")
    assert count_tokens(examples, None, 20).max() == 20


def test_the_command_says_what_it_assumes(tiny, capsys):
    assert status_of("forecast", [f"run={tiny}", "rows=500", "device=l4"]) == 0
    shown = capsys.readouterr().out
    for words in ("on l4 (NVIDIA L4", "time    ", "memory  ", "disk    ", "within 9 hours", "assumed: 500 rows"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["device=p100"], "device=p100 is refused"),
        (["rows=0"], "should be greater than or equal to 1"),
        (["device=tpu"], "device=tpu is not known"),
    ],
)
def test_mistakes_are_one_line(tiny, capsys, arguments, words):
    assert words in refusal(capsys, "forecast", f"run={tiny}", *arguments)


def test_without_test_rows_their_number_is_asked(tiny, tmp_path):
    (tmp_path / "train.csv").write_bytes((SAMPLE / "train.csv").read_bytes())
    with pytest.raises(UserError, match=r"has no test rows; give their number with rows="):
        forecast(tiny, None, SHEETS["t4"], str(tmp_path))


def test_open_answers_are_forecast_where_they_run_only(tmp_path):
    node = composed("task=instruct")
    changed = {key: node[key] for key in ("task", "prompt", "head", "inference", "input_dir")}
    write_finished_fold(tmp_path / "b", **changed)
    with pytest.raises(UserError, match="writes texts, whose lengths are not known"):
        forecast(tmp_path / "b", 10, SHEETS["t4"])
