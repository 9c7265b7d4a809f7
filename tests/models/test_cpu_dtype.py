"""Frozen weights on a CPU: in 16 bit where its products are faster, which is measured, and in float32 elsewhere."""

import os
import subprocess
import sys
import time

import pytest
import torch
from transformers import LlamaConfig

from nexttoken.models import precision
from nexttoken.models.load import ModelSpec, resolve
from support.composed import settings

LARGE = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9)
SMALL = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)


def chosen(config: LlamaConfig, *overrides: str) -> ModelSpec:
    return resolve(settings("model.name_or_path=any", *overrides), config, torch.device("cpu"))


@pytest.fixture(params=[1.4, 1.6], ids=["little gain", "gain"])
def expected(request, monkeypatch) -> torch.dtype:
    """Products of given times, and the dtype that follows from them."""
    seconds = {torch.float32: request.param, torch.bfloat16: 1.0}
    monkeypatch.setattr(precision, "_seconds_of_product", lambda width, dtype: seconds[dtype])
    precision.fast_cpu_dtype.cache_clear()
    yield torch.bfloat16 if request.param > precision.MIN_GAIN else torch.float32
    precision.fast_cpu_dtype.cache_clear()


def test_frozen_weights_of_a_large_model_take_the_faster_dtype(expected):
    for overrides in (("adapter=lora",), ("trainer.max_epochs=0",)):
        spec = chosen(LARGE, *overrides)
        assert (spec.dtype, spec.precision) == (expected, precision.PRECISIONS[expected])


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (SMALL, ["adapter=lora"]),
        (LARGE, ["fit=finetune"]),  # all weights are trained
        (LARGE, ["adapter=lora", "model.dtype=float32"]),
        (LARGE, ["adapter=lora", "quantization=int8"]),
    ],
)
def test_other_weights_stay_in_float32(expected, config, overrides):
    assert chosen(config, *overrides).dtype == torch.float32


def test_a_product_is_measured_in_milliseconds():
    start = time.process_time()
    assert precision.fast_cpu_dtype.__wrapped__(8192) in (torch.float32, torch.bfloat16)
    assert time.process_time() - start < 3  # 0.04 s with units, most of it in float32; without units ten times as long


def test_a_busy_machine_chooses_as_an_idle_one():
    idle = precision.fast_cpu_dtype.__wrapped__(576)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # as without OMP_NUM_THREADS
    try:
        assert [precision.fast_cpu_dtype.__wrapped__(576) for _ in range(10)] == [idle] * 10
        assert torch.get_num_threads() == (os.cpu_count() or 1)
    finally:
        torch.set_num_threads(num_threads)
        for other in others:
            other.kill()
            other.wait()
