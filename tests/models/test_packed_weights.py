"""Weights that other tools packed compute what the weights that were packed compute, and take their small memory."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.engine.memory_plan.make import make_plan, plan_weights
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import load_config, load_model, load_tokenizer, resolve
from nexttoken.models.packed_loading import PackedLinear
from nexttoken.models.quantized import refuse_untrainable
from nexttoken.settings import AdapterSettings, ModelSettings, QuantizationSettings, ScratchSettings
from support.composed import settings
from support.packed_weights import RECIPES, save_packed
from support.training import predict, train

TOKEN_IDS = torch.arange(1, 40)[None]
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from conftest import TEXTS, load_pair
    from nexttoken.models.saved import save_whole

    small = ScratchSettings(vocab_size=400, hidden_size=96, num_layers=2, num_heads=4)
    pair, folder = load_pair(ModelSettings(scratch=small), TEXTS), tmp_path_factory.mktemp("base") / "whole"
    save_whole(folder, pair.model, pair.tokenizer)
    return folder


@pytest.fixture(scope="module")
def folders(base):
    """For each recipe the folder of packed weights and that of the same weights whole."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in made:
            place = base.parent / name.replace(" ", "_").replace(",", "")
            made[name] = (place / "packed", place / "whole")
            save_packed(base, RECIPES[name], *made[name])
        return made[name]

    return make


def load(folder: Path, dtype=torch.float32, **options):
    named = ModelSettings(name_or_path=str(folder))
    return load_model(named, load_tokenizer(named, ()), 64, dtype, **options).eval()


def packed_layers(model) -> dict[str, PackedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}


@pytest.mark.parametrize("name", RECIPES)
def test_packed_weights_have_the_values_that_were_packed(folders, name):
    packed, whole = (load(folder) for folder in folders(name))
    layers = packed_layers(packed)
    assert len(layers) == 14
    for layer_name, layer in layers.items():
        torch.testing.assert_close(layer.values(torch.float32), whole.get_submodule(layer_name).weight)
    with torch.inference_mode():
        logits = [model(input_ids=TOKEN_IDS).logits for model in (packed, whole)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_scales_keep_their_precision_in_a_model_of_another_dtype(folders):
    packed, whole = (
        load(folder, dtype) for folder, dtype in zip(folders("awq"), (torch.bfloat16, torch.float32), strict=True)
    )
    assert packed.dtype == torch.bfloat16
    for name, layer in packed_layers(packed).items():
        assert torch.equal(layer.values(torch.bfloat16), whole.get_submodule(name).weight.bfloat16())


def test_they_stay_packed_in_memory(folders):
    packed = load(folders("gptq, 4 bits")[0])
    (layer, *_) = packed_layers(packed).values()
    held = sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())
    assert layer.weight is None
    assert held < layer.in_features * layer.out_features  # of four bytes each, were it whole


@pytest.mark.parametrize("name", ["gptq, 4 bits", "awq"])
def test_the_plan_counts_them_packed(folders, name):
    folder, _ = folders(name)
    asked = settings(
        "model=smollm2_135m", f"model.name_or_path={folder}", "model.dtype=float32", "trainer.max_epochs=0"
    )
    spec = resolve(asked)
    spec.config.quantization_config |= {"group_size": 16}
    model = load(folder)
    held = [*model.parameters(), *(one for name, one in model.named_buffers() if not name.endswith(("g_idx", "freq")))]
    expected = sum(one.numel() * one.element_size() for one in held)
    assert plan_weights(spec).size("weights") == pytest.approx(expected, rel=0.01)


def test_no_second_quantisation_is_advised(folders, monkeypatch):
    monkeypatch.setattr("nexttoken.engine.memory_plan.make.free_memory", lambda _: 1000)
    monkeypatch.setattr("nexttoken.engine.memory_plan.advice.NF4", pytest.fail)
    for folder, streams in zip(folders("awq"), ("false", "true"), strict=True):
        named = ("model=smollm2_135m", f"model.name_or_path={folder}", f"model.stream_layers={streams}")
        assert make_plan(resolve(settings(*named, "trainer.max_epochs=0"))).advice is None


@pytest.mark.parametrize("name", ["gptq, 8 bits, act-order", "awq", "int8 a channel"])
def test_an_adapter_learns_on_packed_weights_as_on_whole_ones(folders, name):
    gradients = []
    for folder in folders(name):
        torch.manual_seed(0)
        model = add_adapter(load(folder), LORA)
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(parameter_name)))
        model(input_ids=TOKEN_IDS, labels=TOKEN_IDS).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert len(gradients[0]) == 28
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_they_become_whole_again(folders):
    packed, whole = (load(folder) for folder in folders("packed"))
    model = packed.dequantize(dtype=torch.float32)
    assert not packed_layers(model)
    torch.testing.assert_close(dict(model.named_parameters()), dict(whole.named_parameters()))


def test_a_run_on_packed_weights_predicts(folders, tmp_path):
    packed, whole = folders("gptq, 4 bits")
    losses, tables = [], []
    for folder in (packed, whole):
        out = tmp_path / folder.name
        asked = ("model=smollm2_135m", f"model.name_or_path={folder}", "model.dtype=float32")
        losses.append(train(out, *asked, "adapter=none", "trainer.max_epochs=0", "fold=0"))
        tables.append(predict(out, f"run={out}/lmsys/tiny").drop(columns="id"))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (tables[0] - tables[1]).abs().to_numpy().max() < 1e-5


def change(folder: Path, copy: Path, tensors=None, **saved: object) -> Path:
    """A copy of a packed model with other tensors, or with other values in its quantization_config."""
    shutil.copytree(folder, copy)
    path = copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"quantization_config": config["quantization_config"] | saved}))
    state = load_file(copy / "model.safetensors")
    save_file(state if tensors is None else tensors(state), copy / "model.safetensors", {"format": "pt"})
    return copy


def test_other_layouts_and_broken_files_are_refused(folders, tmp_path):
    gptq, awq = (folders(name)[0] for name in ("gptq, 4 bits", "awq"))
    key = "model.layers.1.mlp.up_proj.qweight"
    broken = {
        "layout 'gemv' are not read, expected gemm": change(awq, tmp_path / "0", version="gemv"),
        "layout 'marlin' are not read": change(gptq, tmp_path / "1", checkpoint_format="marlin"),
        "up_proj: 96 weights are packed in 11 int32s; only 2, 4 and 8 bits": change(
            gptq, tmp_path / "2", lambda state: state | {key: state[key][:-1].clone()}
        ),
        "no packed weight of this architecture": change(
            gptq, tmp_path / "3", lambda state: {name: one for name, one in state.items() if "qweight" not in name}
        ),
        "weights are missing": change(
            gptq, tmp_path / "4", lambda state: {name: one for name, one in state.items() if name != key}
        ),
    }
    for message, folder in broken.items():
        with pytest.raises(UserError, match=message) as raised:
            load(folder)
        assert "\n" not in str(raised.value)


def test_a_second_quantisation_and_an_adapter_that_needs_whole_weights_are_refused(folders):
    folder, _ = folders("awq")
    with pytest.raises(UserError, match="holds weights in awq already; use quantization=none"):
        load(folder, quantization=QuantizationSettings(bits=4))
    asked = settings(f"model.name_or_path={folder}", "model=smollm2_135m", "adapter=lora", "trainer.max_epochs=1")
    config = load_config(ModelSettings(name_or_path=str(folder)))
    refuse_untrainable(config, asked)
    dora = asked.model_copy(update={"adapter": asked.adapter.model_copy(update={"dora": True})})
    with pytest.raises(UserError, match=r"adapter\.dora needs the whole weights"):
        refuse_untrainable(config, dora)
    with pytest.raises(UserError, match=r"are quantised \(awq\) and cannot be trained; add adapter=lora"):
        refuse_untrainable(config, asked.model_copy(update={"adapter": None}))
