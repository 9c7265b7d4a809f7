"""A base that was saved quantised is the base that is quantised while it loads, to the last bit and by its name."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import save_small_base
from nexttoken.commands.quantize import main
from nexttoken.engine.answerers import load_answerer
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.errors import UserError
from nexttoken.inference import Once
from nexttoken.models import saved as saving
from nexttoken.models.adapters import add_adapter
from nexttoken.models.base_model import fingerprint, identify, read_base
from nexttoken.models.load import load_config, load_model, load_tokenizer
from nexttoken.models.quantized import four_bit_layers, import_bitsandbytes, move_model, refuse_untrainable
from nexttoken.models.saved import save_labels, save_quantized, save_trained, save_whole
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import ModelSettings, QuantizationSettings, Settings
from nexttoken.types import Example
from support.composed import settings

METHODS = {
    "nf4": QuantizationSettings(bits=4),
    "fp4": QuantizationSettings(bits=4, quant_type="fp4", double=False),
    "int8": QuantizationSettings(bits=8),
}
PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
EXAMPLES = [Example(str(n), {"text": (f"Which one is better? {'yes ' * n}",)}, n % 3) for n in range(12)]
TOKEN_IDS = torch.arange(1, 40)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = save_small_base(tmp_path_factory.mktemp("base") / "whole")
    (folder / "LICENSE.txt").write_text("Do what you like.")
    return folder


@pytest.fixture(scope="module")
def copies(base) -> dict[str, Path]:
    made = {name: base.with_name(name) for name in METHODS}
    for name, folder in made.items():
        save_quantized(asking(base, METHODS[name]), folder)
    return made


def asking(folder: Path, quantization: QuantizationSettings | None, *overrides: str) -> Settings:
    """Settings that train nothing, on a folder's weights."""
    plain = settings(f"model.name_or_path={folder}", "trainer.max_epochs=0", "max_tokens=128", *overrides)
    return plain.model_copy(update={"quantization": quantization})


def load(folder: Path, quantization: QuantizationSettings | None, num_classes: int | None = None, dtype=torch.float32):
    named = ModelSettings(name_or_path=str(folder))
    torch.manual_seed(0)
    return load_model(named, load_tokenizer(named, ()), 64, dtype, quantization, num_classes).eval()


@torch.inference_mode()
def logits(model) -> torch.Tensor:
    return model(input_ids=TOKEN_IDS).logits


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_copy_computes_what_quantising_while_loading_does(base, copies, method, num_classes):
    expected = logits(load(base, METHODS[method], num_classes))
    assert not torch.equal(expected, logits(load(base, None, num_classes))), "quantising changes something"
    for quantization in (METHODS[method], None):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="You passed `quantization_config`")
            model = load(copies[method], quantization, num_classes)
        assert torch.equal(logits(model), expected)
        assert not any(layer.support_avx512bf16_for_cpu for layer in four_bit_layers(model))


def test_what_a_copy_is_computed_in_is_for_the_machine_that_loads_it_to_say(copies):
    layers = four_bit_layers(load(copies["nf4"], None, dtype=torch.bfloat16))
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}
    named = QuantizationSettings(bits=4, compute_dtype="float32")
    layers = four_bit_layers(load(copies["nf4"], named, dtype=torch.bfloat16))
    assert {layer.compute_dtype for layer in layers} == {torch.float32}


@pytest.mark.parametrize("asked", ["int8", "fp4"])
def test_another_quantisation_than_the_saved_one_is_refused(copies, asked):
    with pytest.raises(UserError, match=r"holds weights in nf4 with double quantisation, which quantization=.* cannot"):
        load(copies["nf4"], METHODS[asked])


def test_quantised_weights_are_not_trained_themselves(base, copies):
    config = load_config(ModelSettings(name_or_path=str(copies["nf4"])))
    refuse_untrainable(config, asking(copies["nf4"], None))
    refuse_untrainable(config, asking(copies["nf4"], None, "adapter=lora", "trainer.max_epochs=1"))
    with pytest.raises(UserError, match=r"are quantised \(bitsandbytes\) and cannot be trained; add adapter=lora"):
        refuse_untrainable(config, asking(copies["nf4"], None, "trainer.max_epochs=1"))
    loftq = ("adapter=lora", "quantization=nf4", "adapter.init=loftq", "trainer.max_epochs=1")
    with pytest.raises(UserError, match=r"adapter\.init=loftq starts from the whole weights"):
        refuse_untrainable(config, asking(copies["nf4"], METHODS["nf4"], *loftq))
    refuse_untrainable(load_config(ModelSettings(name_or_path=str(base))), asking(base, METHODS["nf4"], *loftq))


def test_whole_training_of_a_copy_stops_before_the_weights_are_read(copies, monkeypatch):
    from nexttoken.training import learner as learn

    monkeypatch.setattr(learn, "load_model", lambda *_: pytest.fail("weights were read"))
    asked = asking(copies["nf4"], None, "trainer.max_epochs=1")
    with pytest.raises(UserError, match="cannot be trained; add adapter=lora"):
        learn.Learner.load(asked, LabelSoftmax(), PROMPT, EXAMPLES, [])


def trained(fold_dir: Path, asked: Settings) -> Path:
    """A fold whose adapter moves the answers, as training leaves it."""
    tokenizer = load_tokenizer(asked.model, ())
    model = load_model(asked.model, tokenizer, asked.max_tokens, torch.float32, asked.quantization)
    assert asked.adapter is not None
    model = add_adapter(model, asked.adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    save_trained(fold_dir, asked, model, tokenizer)
    save_labels(fold_dir / "labels.json", Encoder(tokenizer, PROMPT, 128).encode(EXAMPLES).labels)
    return fold_dir


def ask(fold_dir: Path, asked: Settings) -> np.ndarray:
    return Once()(EXAMPLES, load_answerer(fold_dir, asked, PROMPT, LabelSoftmax(), 512)).probs


@pytest.mark.parametrize("trained_on", ["base", "copy"])
def test_an_adapter_fits_the_base_and_its_copy(base, copies, tmp_path, trained_on):
    first, second = (base, copies["nf4"]) if trained_on == "base" else (copies["nf4"], base)
    lora = ("adapter=lora", "trainer.max_epochs=1", "quantization=nf4")
    fold_dir = trained(tmp_path / "fold0", asking(first, METHODS["nf4"], *lora))
    probs = ask(fold_dir, asking(first, METHODS["nf4"], *lora))
    np.testing.assert_array_equal(ask(fold_dir, asking(second, METHODS["nf4"], *lora)), probs)


def test_an_adapter_that_names_no_quantisation_stays_with_the_bits_it_saw(base, copies, tmp_path):
    lora = ("adapter=lora", "trainer.max_epochs=1")
    on_copy = trained(tmp_path / "fold0", asking(copies["nf4"], None, *lora))
    on_base = trained(tmp_path / "fold1", asking(base, None, *lora))
    with pytest.raises(UserError, match=r"on weights nf4 with double quantisation, and those of .* as they came"):
        ask(on_copy, asking(base, None, *lora))
    with pytest.raises(UserError, match=r"on weights as they came, and those of .* nf4 with double quantisation"):
        ask(on_base, asking(copies["nf4"], None, *lora))


def test_a_copy_of_another_model_is_refused(base, copies, tmp_path):
    other, model = tmp_path / "other", load(base, None)
    model.get_input_embeddings().weight.data += 1
    save_whole(other, model, load_tokenizer(ModelSettings(name_or_path=str(base)), ()))
    save_quantized(asking(other, METHODS["nf4"]), tmp_path / "other_nf4")
    lora = ("adapter=lora", "trainer.max_epochs=1", "quantization=nf4")
    fold_dir = trained(tmp_path / "fold0", asking(copies["nf4"], METHODS["nf4"], *lora))
    with pytest.raises(UserError, match="whose weights are not those of"):
        ask(fold_dir, asking(tmp_path / "other_nf4", METHODS["nf4"], *lora))


def test_a_copy_says_what_it_is(base, copies):
    folder = copies["nf4"]
    named = ModelSettings(name_or_path=str(base))
    origin = identify(named, load_tokenizer(named, ()))
    assert read_base(folder) == replace(origin, stored="nf4 with double quantisation", files=fingerprint(folder))
    note = (folder / "README.md").read_text()
    assert f"The licence of {base} applies" in note
    assert "nf4 with double quantisation (bitsandbytes)" in note
    assert (folder / "LICENSE.txt").read_text() == "Do what you like."
    assert (folder / "generation_config.json").exists()
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"] == "nf4"


def test_a_failure_leaves_nothing(base, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(saving, "write_note", full)
    with pytest.raises(OSError, match="No space"):
        save_quantized(asking(base, METHODS["nf4"]), tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_the_command(base, copies, tmp_path, capsys, monkeypatch, repository):
    monkeypatch.chdir(repository)
    out, named = tmp_path / "models" / "copy", f"model.name_or_path={base}"
    refused = {
        (named, "quantization=nf4"): "out= is missing; write out=models/<name>",
        (named, "quantization=nf4", f"out={base}"): "exists already",
        (named, f"out={out}"): "add quantization=nf4",
        ("quantization=nf4", f"out={out}"): "quantization needs a pretrained model",
        (f"model.name_or_path={copies['int8']}", "quantization=nf4", f"out={out}"): "holds weights in int8 already",
    }
    for arguments, line in refused.items():
        with pytest.raises(UserError, match=line):
            main(arguments)
    assert not out.exists()
    main([named, "quantization=nf4", f"out={out}"])
    assert f"use it by model.name_or_path={out}" in capsys.readouterr().out
    assert torch.equal(logits(load(out, None)), logits(load(copies["nf4"], None)))


@pytest.mark.parametrize("command", ["quantize", "merge"])
def test_help_needs_no_torch(command):
    code = f"import sys, nexttoken.commands.{command}; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


@pytest.mark.parametrize("is_installed", [True, False])
def test_no_native_code_is_fetched_from_a_hub_when_bitsandbytes_is_imported(tmp_path, monkeypatch, is_installed):
    """Stand-ins for both packages: on CPUs with bf16 units the real one tries this import, elsewhere it does not."""
    (tmp_path / "kernels.py").write_text("get_kernel = None\n")
    tries = "try:\n    import kernels\nexcept Exception as error:\n    refused = type(error)\n"
    (tmp_path / "bitsandbytes.py").write_text(tries if is_installed else "raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ("bitsandbytes", "kernels")]:
        monkeypatch.delitem(sys.modules, name)
    import_bitsandbytes()
    assert "kernels" not in sys.modules
    assert not is_installed or issubclass(sys.modules["bitsandbytes"].refused, ImportError)
    import kernels  # for others it stays what it was

    import_bitsandbytes()
    assert sys.modules["kernels"] is kernels


def eight_bit_layers(model) -> list:
    from bitsandbytes.nn import Linear8bitLt

    return [module for module in model.modules() if isinstance(module, Linear8bitLt)]


def held_bytes(model) -> int:
    """Bytes of the 8-bit weights in memory, each storage once."""
    layers = eight_bit_layers(model)
    numbers = [one for layer in layers for one in (layer.weight.data, layer.weight.CB, layer.state.CB)]
    return sum({one.data_ptr(): one.untyped_storage().nbytes() for one in numbers if one is not None}.values())


@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize("is_computed", [False, True])
def test_8_bit_weights_are_in_memory_once_when_training_gives_the_model_back(base, with_adapter, is_computed):
    """`.data` is exchanged as moving to another device and back does; what the layer computes with stays behind."""
    model_settings = ModelSettings(name_or_path=str(base))
    model = load_model(
        model_settings, load_tokenizer(model_settings, ()), 128, torch.float32, QuantizationSettings(bits=8)
    )
    if with_adapter:
        model = add_adapter(model, settings("model=smollm2_135m", "adapter=lora").adapter)
    model.eval()
    before = held_bytes(model)
    if is_computed:
        expected = model(TOKEN_IDS).logits
    for layer in eight_bit_layers(model):
        layer.weight.data = layer.weight.data.clone()
    assert held_bytes(model) == 2 * before
    assert move_model(model, torch.device("cpu")) is model
    assert held_bytes(model) == before > 0
    if is_computed:
        assert torch.equal(model(TOKEN_IDS).logits, expected)
    assert model(TOKEN_IDS).logits.isfinite().all()
    assert held_bytes(move_model(model, torch.device("cpu"))) == before
