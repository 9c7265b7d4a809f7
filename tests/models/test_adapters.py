"""LoRA and QLoRA: exact against dequantised weights, saved without the base, refused where they do not belong."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.engine.heads import Classification, LabelSoftmax, WholeVocabulary
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter, load_adapter, save_adapter, start_from_quantization_error
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.quantized import four_bit_layers, keep_trainable
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import AdapterSettings, ModelSettings, QuantizationSettings
from nexttoken.training.steps import Batcher

LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")
NF4 = QuantizationSettings(bits=4)
INT8 = QuantizationSettings(bits=8)
LABELS = LabelTokens(("A", "B", "tie"), ((5,), (6,), (7, 8)), (("A",), ("B",), ("t", "ie")), 0)
HEADS = {"label": LabelSoftmax(), "vocabulary": WholeVocabulary(), "classification": Classification()}


def load(folder: Path, quantization: QuantizationSettings | None = None, num_classes: int | None = None):
    named = ModelSettings(name_or_path=str(folder))
    torch.manual_seed(2)
    return load_model(named, load_tokenizer(named, ()), 512, torch.float32, quantization, num_classes)


def rows(num_rows: int = 12) -> list[EncodedPrompt]:
    rng = np.random.default_rng(0)
    return [
        EncodedPrompt(f"r{n}", int(rng.integers(3)), "", rng.integers(1, 200, 4 + 3 * n), False)
        for n in range(num_rows)
    ]


def with_adapter(model, adapter: AdapterSettings = LORA, num_classes: int | None = None):
    torch.manual_seed(3)
    return add_adapter(model, adapter, num_classes)


def train_steps(model, head=HEADS["label"], num_steps: int = 3) -> list[float]:
    """Plain AdamW over the same batch; returns the losses. The adapter's own learning is what is compared."""
    (batch,) = Batcher(head, LABELS, 100_000).batches(rows())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(num_steps):
        loss = head.loss(model, batch, LABELS) / len(batch.ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained_weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def dequantised(model):
    """The same weights as plain linear layers: what the 4-bit model computes with, written out."""
    plain = copy.deepcopy(model).dequantize()
    for parameter in plain.parameters():
        parameter.data = parameter.data.float()
    return plain.train()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("double", [True, False])
def test_qlora_learns_what_lora_on_the_dequantised_base_learns(base_dir, head, double):
    num_classes = HEADS[head].num_outputs(LABELS)
    base = load(base_dir, NF4.model_copy(update={"double": double}), num_classes)
    assert len(four_bit_layers(base)) == 14, "seven linear layers a block; never the head"
    quantised, plain = with_adapter(base, num_classes=num_classes), None
    plain = with_adapter(
        dequantised(load(base_dir, NF4.model_copy(update={"double": double}), num_classes)), num_classes=num_classes
    )
    losses = [train_steps(model, HEADS[head]) for model in (quantised, plain)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    assert losses[0][0] - losses[0][-1] > 0.01, "it learns"
    ours, theirs = trained_weights(quantised), trained_weights(plain)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)


def test_gradients_stay_right_after_an_evaluation(base_dir):
    """bitsandbytes packs 4-bit weights at the first evaluation on some CPUs; gradients after it would be wrong."""
    model = with_adapter(load(base_dir, NF4))
    assert all(layer.support_avx512bf16_for_cpu is False for layer in four_bit_layers(model.get_base_model()))
    plain = with_adapter(dequantised(load(base_dir, NF4)))
    (batch,) = Batcher(LabelSoftmax(), LABELS, 100_000).batches(rows())
    losses = []
    for each in (model, plain):
        train_steps(each, num_steps=1)
        with torch.inference_mode():
            each.eval()
            HEADS["label"].scores(each, batch, LABELS)
            each.train()
        losses.append(train_steps(each, num_steps=2))
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters() if p.requires_grad]) for m in (model, plain))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99999
    assert ours.norm() > 1e-3


def test_where_the_processor_packs_4_bit_weights_only_the_guard_prevents_it(base_dir):
    from bitsandbytes.nn.modules import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, for which bitsandbytes packs 4-bit weights")
    for packs in (False, True):
        model = with_adapter(load(base_dir, NF4)).eval()
        layers = four_bit_layers(model)
        for layer in layers if packs else ():
            layer.support_avx512bf16_for_cpu = True  # as bitsandbytes made it
        with torch.inference_mode():
            model(input_ids=torch.tensor([[5, 6, 7]]))
        assert all(getattr(one.weight.quant_state, "packing_format_for_cpu", False) is packs for one in layers)


@pytest.mark.parametrize("has_units", [True, False], ids=["bf16 units", "none"])
def test_an_adapter_on_any_4_bit_model_has_the_guard(base_dir, monkeypatch, has_units):
    """Also on a model that `load_model` did not load, on processors with and without bf16 units."""
    import transformers

    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: has_units)
    options = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(base_dir, quantization_config=options)
    assert all(layer.support_avx512bf16_for_cpu is has_units for layer in four_bit_layers(model))
    model.is_loaded_in_4bit = False  # as of layers that were put in one by one
    model = with_adapter(model).eval()
    with torch.inference_mode():
        model(input_ids=torch.tensor([[5, 6, 7]]))
    layers = four_bit_layers(model)
    assert len(layers) == 14
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)


def test_keeping_trainable_switches_the_packing_off(base_dir):
    model = load(base_dir, NF4)
    for layer in four_bit_layers(model):
        layer.support_avx512bf16_for_cpu = True  # what bitsandbytes sets on a CPU with AVX512-BF16
    keep_trainable(model)
    assert not any(layer.support_avx512bf16_for_cpu for layer in four_bit_layers(model))


@pytest.mark.parametrize("quantization", [None, NF4, INT8], ids=["plain", "nf4", "int8"])
@pytest.mark.parametrize("change", [{}, {"rslora": True}, {"dora": True}, {"init": "gaussian"}, {"init": "orthogonal"}])
def test_a_saved_adapter_put_back_answers_the_same(base_dir, tmp_path, quantization, change):
    if (quantization == INT8 and "dora" in change) or (quantization and change.get("init") == "orthogonal"):
        return  # refused by the settings: tests/test_config.py
    adapter = LORA.model_copy(update=change)
    model = with_adapter(load(base_dir, quantization), adapter)
    untrained = scores(model)
    train_steps(model)
    save_adapter(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    again = load_adapter(load(base_dir, quantization), adapter, tmp_path)
    torch.testing.assert_close(scores(again), scores(model), atol=1e-6, rtol=0)
    assert (scores(model) - untrained).abs().max() > 0.01


@torch.inference_mode()
def scores(model, head=HEADS["label"]) -> torch.Tensor:
    training = model.training
    model.eval()
    (batch,) = Batcher(head, LABELS, 100_000).batches(rows())
    found = head.scores(model, batch, LABELS).softmax(-1)
    model.train(training)
    return found


def test_the_classification_layer_travels_with_the_adapter(base_dir, tmp_path):
    head = HEADS["classification"]
    model = with_adapter(load(base_dir, NF4, 3), num_classes=3)
    before = scores(model, head)
    train_steps(model, head)
    save_adapter(model, tmp_path)
    torch.manual_seed(99)
    again = load_adapter(load(base_dir, NF4, 3), LORA, tmp_path, 3)
    torch.testing.assert_close(scores(again, head), scores(model, head), atol=1e-6, rtol=0)
    assert (scores(model, head) - before).abs().max() > 0.01
    assert any("score" in key for key in load_file(tmp_path / "adapter_model.safetensors"))


def test_peft_itself_loads_the_adapter(base_dir, tmp_path):
    from peft import PeftModel

    model = with_adapter(load(base_dir))
    train_steps(model)
    save_adapter(model, tmp_path)
    torch.testing.assert_close(scores(PeftModel.from_pretrained(load(base_dir), str(tmp_path))), scores(model))


@pytest.fixture
def adapter_dir(base_dir, tmp_path) -> Path:
    save_adapter(with_adapter(load(base_dir)), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_the_configuration_lists_its_layers_in_order(base_dir, adapter_dir):
    """A set has another order in every process, so that two equal runs would differ in this file."""
    config = json.loads((adapter_dir / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 14, "all linear layers of two blocks"


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"r": "4"}', '{"r": true}', '{"r": [4]}'])
def test_a_strange_configuration_is_one_line(base_dir, adapter_dir, text):
    (adapter_dir / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match=r"adapter") as error:
        load_adapter(load(base_dir), LORA, adapter_dir)
    assert "\n" not in str(error.value)


def test_another_rank_is_refused(base_dir, adapter_dir):
    with pytest.raises(UserError, match=r"\(r is 4, not 8\)"):
        load_adapter(load(base_dir), LORA.model_copy(update={"r": 8}), adapter_dir)
    with pytest.raises(UserError, match=r"use_rslora is False, not True"):
        load_adapter(load(base_dir), LORA.model_copy(update={"rslora": True}), adapter_dir)


@pytest.mark.parametrize("damage", ["missing", "foreign", "shape", "integers", "nan", "infinite"])
def test_missing_and_foreign_keys_are_errors(base_dir, adapter_dir, damage):
    path = adapter_dir / "adapter_model.safetensors"
    saved = load_file(path)
    name = sorted(saved)[0]
    changed = {
        "missing": {key: value for key, value in saved.items() if key != name},
        "foreign": saved | {"base_model.model.somewhere.lora_A.weight": torch.zeros(2, 2)},
        "shape": saved | {name: saved[name][:1].clone()},
        "integers": saved | {name: saved[name].to(torch.int32)},
        "nan": saved | {name: saved[name] * float("nan")},
        "infinite": saved | {name: saved[name] + float("inf")},
    }[damage]
    save_file(changed, path)
    with pytest.raises(UserError, match="1 of its weights do not fit"):
        load_adapter(load(base_dir), LORA, adapter_dir)


def test_a_broken_file_is_one_line(base_dir, adapter_dir):
    path = adapter_dir / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_adapter(load(base_dir), LORA, adapter_dir)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_porj"], r"'v_porj' is no layer of this model; did you mean 'v_proj'\?"),
        (["query"], r"'query' is no layer of this model; known: .*lm_head, .*q_proj"),
        (["q_proj", "q_prój"], r"'q_prój' is no layer of this model; did you mean 'q_proj'\?"),
        (["q_proj", "proj"], r"'proj' is no layer of this model"),
        (["layers.0.self_attn.q_proj", "layers.2.self_attn.q_proj"], r"'layers.2.self_attn.q_proj' is no layer"),
        (["embed_tokens", "q_proj"], r"'embed_tokens' is the tokens' embedding"),
        (r".*(q_proj|embed_tokens)", r"is the tokens' embedding"),
        ("q_proj", r"'q_proj' is no layer of this model; a pattern matches whole names"),
        ("ALL_linear", r"did you mean 'all-linear'"),
        ("q_proj[", r"'q_proj\[' is no pattern"),
        (["self_attn"], r"is refused: Target module"),
        ([], r"is refused: No `target_modules` passed"),
    ],
)
def test_target_modules_that_would_not_be_adapted_are_refused(base_dir, targets, message):
    with pytest.raises(UserError, match=message) as refused:
        with_adapter(load(base_dir), LORA.model_copy(update={"target_modules": targets}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("targets", [["layers.1.mlp.up_proj", "lm_head"], r".*\.1\.(.*up_proj)|lm_head", ["o_proj"]])
def test_every_named_layer_is_adapted_and_no_other(base_dir, targets):
    model = with_adapter(load(base_dir), LORA.model_copy(update={"target_modules": targets}))
    adapted = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in trained_weights(model)}
    named = {"lm_head", "model.layers.1.mlp.up_proj"}
    both = {f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)}
    assert adapted == (both if targets == ["o_proj"] else named)


@pytest.mark.parametrize("rslora", [False, True])
def test_loftq_starts_nearer_to_the_whole_weights(base_dir, rslora):
    """Rank 32 of 64 gives back most of what quantisation took; the default start gives back nothing."""
    adapter = LORA.model_copy(update={"r": 32, "alpha": 16, "rslora": rslora, "init": "loftq"})
    whole = scores(load(base_dir))
    model = with_adapter(load(base_dir, NF4), adapter)
    plain = (scores(model) - whole).abs().mean()
    start_from_quantization_error(model, base_dir)
    assert (scores(model) - whole).abs().mean() < 0.5 * plain


def test_loftq_without_whole_weights_is_refused(base_dir, tmp_path):
    model = with_adapter(load(base_dir, NF4))
    with pytest.raises(UserError, match=r"adapter\.init=loftq needs the whole weights"):
        start_from_quantization_error(model, tmp_path)


def test_a_vision_tower_gets_no_adapter():
    import transformers

    text = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14})
    model = with_adapter(transformers.AutoModelForCausalLM.from_config(config))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 7
    assert not any("vision" in name for name in trained)
