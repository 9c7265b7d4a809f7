"""16-bit weights on a CPU without units for them: the numbers of the same weights in float32, at their size."""

import copy

import numpy as np
import pytest
import torch
import transformers

import small_models
from nexttoken.models import widened
from nexttoken.models.answer import predict_labels
from nexttoken.models.forward.losses import token_losses
from nexttoken.models.forward.shortcuts import Shortcuts, shortcuts
from nexttoken.models.heads import LabelSoftmax, WholeVocabulary
from nexttoken.models.lora.adapters import add_adapter
from nexttoken.models.tokens.encode import EncodedPrompt
from nexttoken.models.tokens.labels import LabelTokens
from nexttoken.models.widened import WideLinear, Widened, computed_in, widen
from nexttoken.settings import AdapterSettings

MODELS = ("Llama", "Qwen2", "Gemma2", "GPTNeoX", "GPT2", "Phi", "OPT", "Mixtral")
SIZES = {"max_position_embeddings": 128, "hidden_size": 64}  # Gemma's factor, the root of it, has no digits to lose
LABELS = LabelTokens(("A", "B"), ((5,), (6,)), (("A",), ("B",)), num_rejoined=0)
ADAPTER = AdapterSettings(
    r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default"
)


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    """This machine, whatever it is, as a CPU without units for 16 bit."""
    monkeypatch.setattr(widened, "has_units", lambda dtype: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def both(name: str, dtype: torch.dtype = torch.bfloat16):
    """A model of 16-bit weights that is widened, and one of the same weights in float32."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**small_models.SMALL | SIZES)
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    wide = copy.deepcopy(plain)
    widen(wide)
    return wide, plain.float()


def prompts(num_rows: int = 7) -> list[EncodedPrompt]:
    draw = np.random.default_rng(0)
    ids = [draw.integers(1, 97, draw.integers(3, 60)).astype(np.int32) for _ in range(num_rows)]
    return [EncodedPrompt(str(row), row % 2, "", own, False) for row, own in enumerate(ids)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("head", [LabelSoftmax(), WholeVocabulary()], ids=["label", "vocabulary"])
def test_probabilities_are_those_of_the_same_weights_in_float32(name, head):
    found, expected = (predict_labels(model, head, prompts(), LABELS, 100).probs for model in both(name))
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_matrices_stay_in_16_bit_and_everything_else_is_float32():
    wide, plain = both("Qwen2", torch.float16)
    dtypes = {name: parameter.dtype for name, parameter in wide.named_parameters()}
    narrow = {name for name, dtype in dtypes.items() if dtype == torch.float16}
    assert {name for name, parameter in plain.named_parameters() if parameter.ndim == 2} == narrow
    assert {dtypes[name] for name in dtypes.keys() - narrow} == {torch.float32}
    assert wide.get_input_embeddings()(torch.tensor([[1]])).dtype == torch.float32
    assert shortcuts(wide) == Shortcuts(packs=True, skips=True)


def test_gradients_of_an_adapter_are_those_over_float32():
    gradients = []
    for model in both("Llama"):
        torch.manual_seed(1)
        adapted = add_adapter(model, ADAPTER).train()
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        token_ids = torch.arange(1, 41).view(2, 20)
        adapted(input_ids=token_ids, labels=token_ids).loss.backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if p.requires_grad})
    found, expected = gradients
    assert len(expected) == 2 * 7 * 2
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6 * float(gradient.abs().max()), rtol=1e-4)


def test_no_widened_matrix_is_kept_for_the_way_back():
    layer = torch.nn.Linear(64, 32).bfloat16().requires_grad_(False)
    layer.__class__, layer.bias.data = WideLinear, layer.bias.data.float()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(torch.randn(3, 5, 64, requires_grad=True)).sum().backward()
    assert [(tensor.dtype, tensor.shape) for tensor in kept] == [(torch.bfloat16, (32, 64))]


@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_the_gradient_of_the_input_is_exact(has_bias):
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3, dtype=torch.bfloat16), torch.randn(4).double() if has_bias else None
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Widened.apply(x, weight, bias), (x,))


def test_losses_in_pieces_are_those_at_once(monkeypatch):
    from nexttoken.models.forward.layout import Pieces

    wide, plain = both("Llama")
    pieces = Pieces()
    pieces.add([1, 2, 3, 4, 5, 6])
    reads, targets = torch.arange(5), torch.arange(2, 7)
    expected = token_losses(plain, pieces.packed(), reads, targets)
    torch.testing.assert_close(token_losses(wide, pieces.packed(), reads, targets), expected, atol=2e-6, rtol=1e-5)
    monkeypatch.setattr("nexttoken.models.forward.losses.PIECE", 200)
    torch.testing.assert_close(token_losses(wide, pieces.packed(), reads, targets), expected, atol=2e-6, rtol=1e-5)


def test_what_a_machine_is_fast_in_stays_as_it_is(monkeypatch):
    assert computed_in(torch.float32) == torch.float32
    assert computed_in(torch.bfloat16) == computed_in(torch.float16) == torch.float32
    monkeypatch.setattr(widened, "has_units", lambda dtype: dtype == torch.bfloat16)
    assert computed_in(torch.bfloat16) == torch.bfloat16
    assert computed_in(torch.float16) == torch.float32
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**small_models.SMALL)).bfloat16()
    widen(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(isinstance(module, WideLinear) for module in model.modules())
