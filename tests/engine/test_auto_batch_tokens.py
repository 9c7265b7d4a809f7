"""batch_tokens=auto: what the device holds, never less than a row, and no more than it is faster with."""

import pytest
import torch

from nexttoken.engine.memory_plan import auto_tokens
from nexttoken.engine.memory_plan.auto_tokens import choose_batch_tokens, with_batch_tokens
from nexttoken.engine.memory_plan.make import make_plan
from nexttoken.models.load import resolve
from nexttoken.settings import AUTO
from support.composed import settings

CPU = torch.device("cpu")


def with_free(monkeypatch, num_bytes: int | None) -> None:
    monkeypatch.setattr("nexttoken.engine.memory_plan.make.free_memory", lambda _: num_bytes)


@pytest.fixture
def chosen():
    some = settings("batch_tokens=auto", "max_tokens=256")
    assert some.batch_tokens == AUTO
    return resolve(some, device=CPU)


def test_a_cpu_takes_what_is_fastest_there(chosen, capsys):
    assert with_batch_tokens(chosen).settings.batch_tokens == 1024
    assert capsys.readouterr().out.startswith("batch_tokens: auto -> 1,024 tokens: a CPU is no faster with more, ")
    given = chosen.change(batch_tokens=300)
    assert with_batch_tokens(given) is given
    assert capsys.readouterr().out == ""


def test_weights_that_each_batch_unpacks_get_larger_ones(base_dir):
    quantised = (f"model.name_or_path={base_dir}", "quantization=nf4", "adapter=lora")
    some = settings("batch_tokens=auto", "max_tokens=256", *quantised)
    assert choose_batch_tokens(resolve(some, device=CPU)).number == 2048


@pytest.mark.parametrize("tokens", [512, 2048, 16_384])
def test_the_memory_is_filled_and_not_more(chosen, monkeypatch, tokens):
    """With as much as a number takes, by the plan, that number is chosen; with less, half of it."""
    monkeypatch.setattr(auto_tokens, "SUFFICIENT_TOKENS", {"cpu": 65_536})
    needed = make_plan(chosen.change(batch_tokens=tokens)).needed
    with_free(monkeypatch, int(needed / 0.9) + 1000)
    assert choose_batch_tokens(chosen).number == tokens
    with_free(monkeypatch, int(needed / 0.9) - 1000)
    assert choose_batch_tokens(chosen).number == max(tokens // 2, 256)


def test_a_row_is_never_cut_for_it(chosen, monkeypatch):
    with_free(monkeypatch, 1000)
    assert choose_batch_tokens(chosen).number == 256
    with_free(monkeypatch, None)
    assert "unknown" in choose_batch_tokens(chosen).reason
