"""Label logits of 16-bit models: float32 products of the same hidden states, in training and in prediction."""

import copy

import pytest
import torch
import transformers
from torch import Tensor, nn

from nexttoken.engine.forward import float32_head
from nexttoken.engine.forward.output_head import reading
from nexttoken.engine.heads import Classification, LabelSoftmax, WholeVocabulary
from nexttoken.engine.label_scores import answer_logits, collate
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from support import small_models

SMALL = small_models.SMALL | {"max_position_embeddings": 64, "hidden_size": 64, "head_dim": 16}
COLUMNS = [5, 7, 11]
LABELS = LabelTokens(("A", "B", "C"), ((5,), (7,), (11,)), (("A",), ("B",), ("C",)), 0)
LONG_LABELS = LabelTokens(("A", "B", "C"), ((5, 6), (7,), (9, 8)), (("A", "a"), ("B",), ("C", "c")), 0)
SIXTEEN_BIT = [torch.bfloat16, torch.float16]


def build(name: str = "Llama", **options) -> nn.Module:
    """A model in float32 whose largest logit is 24."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | {"tie_word_embeddings": False} | options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        batch = collate(prompts(), ((),))
        model.get_output_embeddings().weight *= 24 / head_outputs(model, batch).abs().max()
    return model


def prompts() -> list[EncodedPrompt]:
    torch.manual_seed(1)
    return [EncodedPrompt(f"r{n}", n % 3, "", torch.randint(1, 97, (3 + n,)).numpy(), False) for n in range(9)]


def head_inputs(model: nn.Module, batch) -> Tensor:
    """The hidden states (M, H) in front of the head, as the model computes them."""
    seen: list[Tensor] = []
    hook = lambda _, inputs: seen.append(inputs[0].detach())  # noqa: E731
    with reading(model, batch.reads), batch.layout.attending(model):
        handle = model.get_output_embeddings().register_forward_pre_hook(hook)
        model(**batch.layout.inputs)
    handle.remove()
    return seen[0][0]


def head_outputs(model: nn.Module, batch) -> Tensor:
    """The float32 head (M, V) on the model's own hidden states."""
    hidden = head_inputs(model, batch).float()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return copy.deepcopy(model.get_output_embeddings()).float()(hidden)


def with_lora(model: nn.Module, **options) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    from nexttoken.models.fast_lora import speed_up_lora

    options = {"target_modules": ["lm_head", "q_proj"]} | options
    model = get_peft_model(model, LoraConfig(r=8, init_lora_weights=False, **options)).eval()
    speed_up_lora(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


HEADS = {
    "untied": lambda model: model,
    "adapter": with_lora,
    "dora": lambda model: with_lora(model, use_dora=True),
    "saved": lambda model: with_lora(model, target_modules=["q_proj"], modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "asking"])
@pytest.mark.parametrize("dtype", SIXTEEN_BIT, ids=["bf16", "fp16"])
@pytest.mark.parametrize("head", HEADS)
def test_label_logits_are_float32_products(head, dtype, training):
    """Adapters are float32 beside a 16-bit base, so that the layers below them need autocast."""
    model = HEADS[head](build().to(dtype))
    for packs in (True, False):
        batch = collate(prompts(), ((),), packs)
        with torch.autocast("cpu", dtype, enabled=head != "untied"), torch.set_grad_enabled(training):
            expected = head_outputs(model, batch)[batch.places[:, 0, 0]][:, COLUMNS]
            logits = answer_logits(model, batch, COLUMNS)[:, 0, 0]
        assert logits.dtype == torch.float32
        assert logits.requires_grad == training
        assert (logits - expected).abs().max() < 1e-3
        assert expected.abs().max() > 8
        assert len(logits.unique()) == logits.numel(), "no ties by rounding"


@pytest.mark.parametrize("dtype", SIXTEEN_BIT, ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "options", "behind"),
    [
        ("Gemma2", {"final_logit_softcapping": 30.0}, lambda logits: 30 * torch.tanh(logits / 30)),
        ("Cohere", {"logit_scale": 0.9}, lambda logits: 0.9 * logits),
        ("Granite", {"logits_scaling": 1.1}, lambda logits: logits / 1.1),
        ("Qwen2", {"tie_word_embeddings": True}, lambda logits: logits),
    ],
)
def test_caps_and_scales_behind_the_head_are_float32(name, options, behind, dtype):
    model = build(name, **options).to(dtype)
    batch = collate(prompts(), ((),), packs=True)
    expected = behind(head_outputs(model, batch))[batch.places[:, 0, 0]]
    for columns in (COLUMNS, None):
        wanted = expected if columns is None else expected[:, columns]
        assert (answer_logits(model, batch, columns)[:, 0, 0] - wanted).abs().max() < 1e-3


def test_fully_trained_weights_are_multiplied_in_float32_under_autocast():
    model = build()
    batch = collate(prompts(), ((),), packs=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected, logits = head_outputs(model, batch), answer_logits(model, batch)[:, 0, 0]
    assert (logits - expected[batch.places[:, 0, 0]]).abs().max() < 1e-3


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_head_is_multiplied_in_float32(bits):
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    model = build()
    old = model.lm_head
    kinds = {4: (Linear4bit, {"quant_type": "nf4"}), 8: (Linear8bitLt, {"has_fp16_weights": False})}
    kind, options = kinds[bits]
    model.lm_head = kind(old.in_features, old.out_features, bias=False, **options)
    model.lm_head.load_state_dict({"weight": old.weight})
    model = model.to(torch.bfloat16).to("cpu")
    batch = collate(prompts(), ((),), packs=True)
    weight = float32_head.row_selector(model.lm_head)(model.lm_head, None).float()
    assert ((weight - old.weight).norm() / old.weight.norm()) < (0.15 if bits == 4 else 0.02)
    expected = (head_inputs(model, batch).float() @ weight.T)[batch.places[:, 0, 0]]
    for _ in range(2):
        assert (answer_logits(model, batch, COLUMNS)[:, 0, 0] - expected[:, COLUMNS]).abs().max() < 1e-3
        assert (answer_logits(model, batch)[:, 0, 0] - expected).abs().max() < 1e-3


@pytest.mark.parametrize("kind", [LabelSoftmax, WholeVocabulary])
@pytest.mark.parametrize("labels", [LABELS, LONG_LABELS], ids=["one token", "several tokens"])
def test_scores_and_gradients_are_those_of_a_float32_head(kind, labels):
    """The same 16-bit body; the head's weights are representable in 16 bits, so that only products differ."""
    model = build().to(torch.bfloat16)
    exact = copy.deepcopy(model)
    exact.lm_head.float()
    exact.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    batch = collate(prompts(), labels.contexts, packs=True)
    found, wanted = (kind().loss(each, batch, labels) for each in (model, exact))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
    for loss in (found, wanted):
        loss.backward()
    ours, theirs = (each.model.embed_tokens.weight.grad.float() for each in (model, exact))
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_a_large_head_is_cast_up_in_parts_with_the_same_numbers(monkeypatch):
    model = build().to(torch.bfloat16)
    batch, weights = collate(prompts(), ((),), packs=True), torch.randn(97)
    results = []
    for size in (float32_head.CPU_PART, 64 * 10):
        monkeypatch.setattr(float32_head, "CPU_PART", size)
        model.zero_grad()
        logits = answer_logits(model, batch)[:, 0, 0]
        (logits @ weights).sum().backward()
        results.append((logits.detach(), model.lm_head.weight.grad.clone(), model.model.norm.weight.grad.clone()))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-6)


def test_a_classification_layer_is_multiplied_in_float32():
    config = transformers.LlamaConfig(**SMALL, num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval().to(torch.bfloat16)
    with torch.no_grad():
        model.score.weight *= 100
    batch, seen = collate(prompts(), ((),), packs=True), []
    model.model.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state.detach()))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scores = Classification().scores(model, batch, LABELS)
        last = seen[-1][0][batch.reads][batch.places[:, 0, 0]]
        torch.testing.assert_close(scores, last.float() @ model.score.weight.float().T, atol=1e-4, rtol=1e-5)


def test_a_head_that_accelerate_moves_is_multiplied_in_float32():
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = build().to(torch.bfloat16)
    batch = collate(prompts(), ((),), packs=True)
    expected = head_outputs(model, batch)[batch.places[:, 0, 0]][:, COLUMNS]
    weights = {"weight": model.lm_head.weight.data.clone()}
    add_hook_to_module(model.lm_head, AlignDevicesHook("cpu", offload=True, weights_map=weights))
    forward = model.lm_head.forward
    assert (answer_logits(model, batch, COLUMNS)[:, 0, 0] - expected).abs().max() < 1e-3
    assert model.lm_head.forward is forward
    assert model.lm_head.weight.is_meta, "the weights are moved away again"
