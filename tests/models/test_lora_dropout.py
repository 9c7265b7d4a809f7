"""Adapters' dropout on the CPU: the definition of nn.Dropout, with masks that are a function of torch's seed."""

import pytest
import torch
import transformers
from torch import nn

from nexttoken.models.adapters import add_adapter
from nexttoken.models.fast_lora import FastDropout, apply_mask
from support.composed import settings


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_it_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    values = torch.ones(997, 1003, requires_grad=True)
    dropped = FastDropout(p)(values)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(p, abs=0.002)
    assert float(dropped.detach().max()) == pytest.approx(1 / (1 - p), rel=1e-4)
    assert float(dropped.mean().detach()) == pytest.approx(1, abs=0.002)
    places = (dropped == 0).float().mean(0), (dropped == 0).float().mean(1)
    assert max(float((share_of - p).abs().max()) for share_of in places) < 0.08, "no row and no column is spared"
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    assert gradient.equal(dropped.detach())


def test_each_of_the_four_numbers_of_a_draw_is_used_alike():
    torch.manual_seed(0)
    dropped = FastDropout(0.25)(torch.ones(400_000)) == 0
    assert [float(dropped[n::4].float().mean()) for n in range(4)] == pytest.approx([0.25] * 4, abs=0.005)


def test_masks_are_a_function_of_the_seed_and_of_nothing_in_evaluation():
    values, quick = torch.randn(3, 5, 7), FastDropout(0.3)
    torch.manual_seed(1)
    first, second = quick(values), quick(values)
    torch.manual_seed(1)
    assert quick(values).equal(first)
    assert not first.equal(second)
    assert quick.eval()(values) is values
    assert FastDropout(0.0)(values).equal(values)
    assert FastDropout(1.0)(values).count_nonzero() == 0
    assert quick.train()(values.bfloat16()).dtype == torch.bfloat16


def test_a_generator_of_its_own_leaves_the_seed_alone():
    values, quick = torch.randn(3, 5, 7), FastDropout(0.3)
    torch.manual_seed(1)
    expected = quick(values)
    quick.generator = torch.Generator()
    before = torch.get_rng_state()
    for _ in range(2):
        quick.generator.manual_seed(1)
        assert quick(values).equal(expected), "the same numbers, whichever generator draws them"
    assert torch.get_rng_state().equal(before)
    assert FastDropout.generator is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_what_is_drawn_is_what_is_done(p, dtype):
    values, quick = torch.randn(3, 5, 7).to(dtype), FastDropout(p)
    torch.manual_seed(1)
    kept, scale = quick.draw(values)
    torch.manual_seed(1)
    assert (kept is None) == (p == 0)
    expected = values if kept is None else torch.where(kept.bool(), values, 0.0)
    assert apply_mask(values, kept).equal(expected)
    assert quick(values).equal(expected * scale)
    assert p == 1 or scale == pytest.approx(1 / (1 - p), rel=1e-4)
    assert quick.eval().draw(values) == (None, 1.0)


def test_adapters_have_it_and_the_base_does_not():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=97, **sizes))
    base = nn.ModuleDict({"dropout": nn.Dropout(0.1)})
    llama.add_module("own", base)
    adapted = add_adapter(llama, settings("adapter=lora", "model.name_or_path=base").adapter)
    kinds = {type(module) for module in adapted.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {FastDropout, nn.Dropout}
    assert type(base["dropout"]) is nn.Dropout
    places = [module.lora_dropout["default"] for module in adapted.modules() if hasattr(module, "lora_dropout")]
    assert len(places) == 14
    assert {type(place) for place in places} == {FastDropout}
