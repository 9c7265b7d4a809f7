"""A merged model answers as its adapter did on its base; adding the adapter to 4-bit weights would not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import save_small_base
from nexttoken import pipeline
from nexttoken.commands.merge import main
from nexttoken.engine import label_answerer as answer
from nexttoken.engine.answerers import load_answerer
from nexttoken.engine.heads import Classification, LabelSoftmax, WholeVocabulary
from nexttoken.engine.label_answerer import LabelAnswerer, predict_labels
from nexttoken.engine.merged_adapter import Merge
from nexttoken.errors import UserError
from nexttoken.inference import Once
from nexttoken.models.adapters import add_adapter
from nexttoken.models.base_model import FILE, identify
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.saved import save_labels, save_quantized, save_trained
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, ModelSettings
from nexttoken.types import Example
from support.composed import composed, settings
from support.training import SAMPLE

PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
HEADS = {"label": LabelSoftmax(), "vocabulary": WholeVocabulary(), "classification": Classification()}
TOLERANCE = 1e-5  # of a class probability, merged in float32


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [Example(str(n), {"text": (f"Which one is better? {'yes ' * n}",)}, n % 3) for n in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_small_base(tmp_path_factory.mktemp("base") / "whole")


def fold_with_adapter(fold_dir: Path, base: Path, examples, *overrides: str) -> Merge:
    """A fold as training leaves it, whose adapter (random weights) moves the answers far."""
    asked = settings(f"model.name_or_path={base}", "adapter=lora", "max_tokens=128", *overrides)
    head = HEADS[next((o.partition("=")[2] for o in overrides if o.startswith("head=")), "label")]
    tokenizer = load_tokenizer(asked.model, ())
    labels = Encoder(tokenizer, PROMPT, 128).encode(examples).labels
    torch.manual_seed(0)
    num_classes = head.num_outputs(labels)
    model = load_model(asked.model, tokenizer, asked.max_tokens, torch.float32, asked.quantization, num_classes)
    assert asked.adapter is not None
    model = add_adapter(model, asked.adapter, num_classes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    save_trained(fold_dir, asked, model, tokenizer)
    save_labels(fold_dir / "labels.json", labels)
    return Merge(fold_dir, asked, PROMPT, head, Once(), batch_tokens=512, dtype="float32")


def ask(merge: Merge, examples, change=lambda model: model) -> np.ndarray:
    answerer = load_answerer(merge.fold_dir, merge.settings, PROMPT, merge.head, 512)
    model = change(answerer.model)
    return LabelAnswerer(model, merge.head, answerer.encoder, answerer.labels, 512)(examples).probs


@pytest.mark.parametrize(
    "overrides",
    [
        ["quantization=none"],
        ["quantization=nf4"],
        ["quantization=nf4", "quantization.quant_type=fp4", "quantization.double=false"],
        ["quantization=nf4", "adapter.dora=true"],
        ["quantization=none", "adapter.dora=true"],
        ["quantization=nf4", "adapter.rslora=true", "adapter.r=64"],
        ["quantization=nf4", "adapter.target_modules=[q_proj,down_proj]"],
        ["quantization=nf4", "head=classification"],
        ["quantization=none", "head=classification"],
        ["quantization=nf4", "head=vocabulary"],
        ["quantization=none", "adapter.target_modules=[lm_head,q_proj]"],
        ["quantization=nf4", "adapter.target_modules=[lm_head]"],
        ["quantization=none", "adapter.target_modules='.*(lm_head|o_proj)'", "adapter.dora=true"],
    ],
    ids=lambda overrides: "_".join(o.partition("=")[2] for o in overrides),
)
def test_merged_weights_answer_as_the_adapter_does(base, tmp_path, examples, overrides):
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, *overrides)
    adapted = ask(merge, examples)
    unadapted = ask(merge, examples, lambda model: model.unload())
    assert np.abs(adapted - unadapted).max() > 0.01, "the adapter matters"
    comparison = merge.save(tmp_path / "merged", examples)
    assert comparison.num_rows == len(examples)
    assert comparison.largest < TOLERANCE
    assert comparison.mean <= comparison.largest
    assert abs(comparison.log_loss_before - comparison.log_loss_after) < TOLERANCE
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert not [name for name in weights if "lora" in name]
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_both_models_are_asked_in_batches_that_were_chosen(base, tmp_path, examples, monkeypatch):
    """The number is chosen at merging for a run with batch_tokens=auto."""
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=none")
    asked_with: list[int] = []
    real = predict_labels
    monkeypatch.setattr(answer, "predict_labels", lambda *args, **own: asked_with.append(args[4]) or real(*args, **own))
    replace(merge, batch_tokens=AUTO).save(tmp_path / "merged", examples)
    assert len(asked_with) == 2
    assert set(asked_with) == {asked_with[0]} != {AUTO}


def test_merging_into_4_bit_weights_would_change_the_answers(base, tmp_path, examples):
    """peft's own merge dequantises, adds and quantises again: the reason why this project does not offer it."""
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=nf4")
    with pytest.warns(UserWarning, match="rounding errors"):
        into_4_bit = ask(merge, examples, lambda model: model.merge_and_unload())
    lost = np.abs(into_4_bit - ask(merge, examples)).max()
    assert merge.save(tmp_path / "merged", examples).largest < TOLERANCE
    assert lost > 100 * TOLERANCE


def test_a_base_that_was_saved_in_4_bit_is_merged_the_same(base, tmp_path, examples):
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=nf4")
    save_quantized(merge.settings, tmp_path / "copy")
    named = merge.settings.model.model_copy(update={"name_or_path": str(tmp_path / "copy")})
    on_copy = replace(merge, settings=merge.settings.model_copy(update={"model": named}))
    assert on_copy.save(tmp_path / "from_copy", examples).largest < TOLERANCE
    merge.save(tmp_path / "from_base", examples)
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("from_copy", "from_base"))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_8_bit_weights_are_dequantised_too(base, tmp_path, examples):
    """Linear8bitLt rounds its inputs as well, so that its answers are not those of any whole weights."""
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=int8")
    assert merge.save(tmp_path / "merged", examples).largest < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_on_request_with_what_it_costs(base, tmp_path, examples, dtype):
    merge = replace(fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=nf4"), dtype=dtype)
    comparison = merge.save(tmp_path / "merged", examples)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {getattr(torch, dtype)}
    assert TOLERANCE < comparison.largest < 0.05


def test_a_sum_that_16_bit_cannot_hold_leaves_nothing(base, tmp_path, examples):
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=nf4", "adapter.alpha=1e7")
    with pytest.raises(UserError, match=r"merging in float16: .* try dtype=float32"):
        replace(merge, dtype="float16").save(tmp_path / "merged", examples)
    assert [path.name for path in tmp_path.iterdir()] == ["fold0"]


def test_a_merged_model_is_a_model_of_its_own(base, tmp_path, examples):
    merge = fold_with_adapter(tmp_path / "fold0", base, examples, "quantization=nf4")
    merge.save(tmp_path / "merged", examples)
    assert not (tmp_path / "merged" / FILE).exists()
    merged = ModelSettings(name_or_path=str(tmp_path / "merged"))
    tokenizer = load_tokenizer(merged, ())
    own, origin = identify(merged, tokenizer), identify(merge.settings.model, tokenizer)
    assert own.weights != origin.weights
    assert own.tokenizer == origin.tokenizer
    note = (tmp_path / "merged" / "README.md").read_text()
    assert "added to the weights dequantised from nf4 with double quantisation in float32" in note
    assert "largest difference of a class probability" in note
    with pytest.raises(UserError, match="whose weights are not those of"):
        load_answerer(
            merge.fold_dir, merge.settings.model_copy(update={"model": merged}), PROMPT, merge.head, batch_tokens=512
        )


@pytest.fixture(scope="module")
def output(base, tmp_path_factory) -> Path:
    """Two small runs that train.py made: one with an adapter, one of whole weights."""
    output = tmp_path_factory.mktemp("output")
    common = (f"output_dir={output}", f"input_dir={SAMPLE}")
    common += (f"model.name_or_path={base}", "limit_rows=24", "logger=none", "trainer.max_epochs=1", "max_tokens=128")
    pipeline.train(composed_config(*common, "name=qlora", "adapter=lora", "quantization=nf4", "fit.learning_rate=0.01"))
    pipeline.train(composed_config(*common, "name=whole"))
    return output / "lmsys"


def composed_config(*overrides: str):
    from omegaconf import OmegaConf

    return OmegaConf.create(composed(*overrides))


def test_the_command(output, tmp_path, capsys):
    capsys.readouterr()
    out = tmp_path / "models" / "merged"
    main([f"run={output / 'qlora'}", "fold=0", f"out={out}", "rows=20"])
    said = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert said["held-out rows compared"] == "20"
    assert float(said["largest difference of a class probability"]) < TOLERANCE
    assert said["log loss with the adapter"] == said["log loss merged"]
    asked = composed_config(f"model.name_or_path={out}", "trainer.max_epochs=0", f"output_dir={tmp_path}", "name=again",
                            f"input_dir={SAMPLE}", "limit_rows=24", "logger=none",
                            "max_tokens=128")  # fmt: skip
    expected = json.loads((output / "qlora" / "fold0" / "metrics.json").read_text())["log_loss"]
    assert pipeline.train(asked) == pytest.approx(expected, abs=TOLERANCE)


def test_what_cannot_be_merged_is_refused_in_one_line(output, tmp_path):
    out = f"out={tmp_path / 'merged'}"
    refused = {
        (out,): "run= is missing",
        (f"run={output / 'qlora'}",): "out= is missing",
        (f"run={output / 'qlora'}", f"out={tmp_path}"): "exists already",
        (f"run={output / 'qlora'}", out, "fold=3"): "fold=3 is not finished; finished folds are 0",
        (f"run={output / 'qlora'}", out, "fold=x"): "fold='x' is not accepted: input should be a valid integer",
        (f"run={output / 'qlora'}", out, "rows=0"): "rows='0' is not accepted: input should be greater than 0",
        (f"run={output / 'qlora'}", out, "dtype=int4"): "input should be 'float32', 'bfloat16' or 'float16'",
        (f"run={output / 'whole'}", out): "has no adapter; its weights are whole already",
        (f"run={output / 'nothing'}", out): "has no finished fold",
        (f"run={output / 'qlora'}", out, "outt=x"): "unknown argument 'outt=x'",
    }
    for arguments, line in refused.items():
        with pytest.raises(UserError, match=line) as error:
            main(arguments)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
