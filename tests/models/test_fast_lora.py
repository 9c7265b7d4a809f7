"""LoRA's branch in one operation: peft's numbers and gradients, and peft's own way wherever it is not plain LoRA."""

import copy
import json
from collections.abc import Callable

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from nexttoken.engine.heads import LabelSoftmax
from nexttoken.models.adapters import add_adapter, save_adapter
from nexttoken.models.fast_lora import FastLayer, speed_up_lora, writable
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import AdapterSettings
from nexttoken.training.steps import Batcher

LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=True, dora=False, init="default")
SMALL = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


def llama(**options) -> nn.Module:
    config = transformers.LlamaConfig(**SMALL, attention_bias=True, initializer_range=0.2, **options)
    return transformers.AutoModelForCausalLM.from_config(config)


def gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.AutoModelForCausalLM.from_config(transformers.GPT2Config(vocab_size=97, **sizes))


def nf4() -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    model = llama()
    for name, old in [*model.model.layers.named_modules()]:
        if isinstance(old, nn.Linear):
            new = Linear4bit(old.in_features, old.out_features, bias=old.bias is not None, quant_type="nf4")
            new.load_state_dict(old.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(model.model.layers.get_submodule(parent), last, new)
    return model.to("cpu")


NUM_LAYERS = {llama: 14, gpt2: 8, nf4: 14}


def adapted(build: Callable[[], nn.Module], dropout: float = 0.0, **changes) -> nn.Module:
    torch.manual_seed(0)
    model = add_adapter(build(), LORA.model_copy(update={"dropout": dropout, **changes}))
    return with_weights(model)


def with_weights(model: nn.Module) -> nn.Module:
    """None of the adapter's matrices zero, as its start has one of the two."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def slow(model: nn.Module) -> nn.Module:
    """The same weights and dropout in peft's own classes."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, FastLayer):
            _, module.__class__ = type(module).__bases__
            assert not isinstance(module, FastLayer)
    return model


def num_branches(output: Tensor) -> int:
    """The number of a graph's steps that are the fast operation."""
    seen, open_ = set(), [output.grad_fn]
    while open_:
        if (step := open_.pop()) is not None and step not in seen:
            seen.add(step)
            open_ += [following for following, _ in step.next_functions]
    return sum(step.name() == "LoraBranchBackward" for step in seen)


def learnt(model: nn.Module, seed: int = 1, checkpointing: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and gradients of all that is trained and of the embedded tokens."""
    torch.manual_seed(5)
    embedded = torch.randn(3, 7, model.get_input_embeddings().embedding_dim, requires_grad=True)
    weights = torch.randn(3, 7, 97)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(seed)
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    model.zero_grad()
    (logits * weights).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return logits, gradients | {"embedded": embedded.grad}


def assert_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        error = (ours[name] - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-30)
        assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("build", [llama, gpt2, nf4])
def test_numbers_and_gradients_are_those_of_peft(build, dropout):
    model = adapted(build, dropout)
    assert sum(isinstance(module, FastLayer) for module in model.modules()) == NUM_LAYERS[build]
    (logits, gradients), (expected, expected_gradients) = learnt(model), learnt(slow(model))
    assert num_branches(logits) == NUM_LAYERS[build]
    assert num_branches(expected) == 0
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert_alike(gradients, expected_gradients)
    assert float(gradients["embedded"].abs().sum()) > 0
    trained = [value.count_nonzero() for name, value in gradients.items() if "lora_" in name]
    assert any(trained) == (dropout < 1), "all of the input dropped, nothing is learnt"


@pytest.mark.parametrize("shape", [(64,), (5, 64), (2, 3, 64), (2, 1, 3, 64)])
@pytest.mark.parametrize("trains_base", [False, True])
@pytest.mark.parametrize("needs_input", [False, True])
def test_any_leading_dimensions_and_any_part_that_needs_gradients(shape, trains_base, needs_input):
    layer = adapted(llama, 0.3).base_model.model.model.layers[0].self_attn.q_proj
    layer.base_layer.requires_grad_(trains_base)
    found = []
    for one in (layer, slow(layer)):
        torch.manual_seed(2)
        x = torch.randn(shape[::-1]).permute(*reversed(range(len(shape)))).requires_grad_(needs_input)  # not contiguous
        output = one(x)
        one.zero_grad()
        output.square().sum().backward()
        gradients = {name: p.grad for name, p in one.named_parameters() if p.requires_grad}
        found.append(gradients | {"output": output.detach()} | ({"x": x.grad} if needs_input else {}))
        assert output.shape == (*shape[:-1], 64)
        assert num_branches(output) == (one is layer)
    assert len(found[0]) == 3 + 2 * trains_base + needs_input
    assert_alike(*found)


def two_adapters(model: nn.Module) -> nn.Module:
    model.add_adapter("second", LoraConfig(r=2, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "second"])
    return with_weights(model)


def with_bias(_: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "o_proj"], lora_bias=True))
    speed_up_lora(model)
    return with_weights(model)


def merged(model: nn.Module) -> nn.Module:
    model.merge_adapter()
    return model


def disabled(model: nn.Module) -> nn.Module:
    model.base_model.disable_adapter_layers()
    return model


def watched(model: nn.Module) -> nn.Module:
    """Something keeps each base layer's output, which must stay the base's."""
    for module in model.modules():
        if isinstance(module, FastLayer):
            module.base_layer.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    "change",
    [lambda _: adapted(llama, 0.3, dora=True), with_bias, two_adapters, merged, disabled, watched],
    ids=["dora", "bias", "two", "merged", "disabled", "watched"],
)
def test_whatever_is_not_plain_is_left_to_peft(change):
    model = change(adapted(llama, 0.3))
    assert any(isinstance(module, FastLayer) for module in model.modules())
    (logits, gradients), (expected, expected_gradients) = learnt(model), learnt(slow(model))
    assert num_branches(logits) == 0
    assert logits.equal(expected)
    for name, gradient in gradients.items():
        other = expected_gradients[name]
        assert gradient is other is None or gradient.equal(other)


class Bounded(nn.Linear):
    """A linear layer of a model's own, which needs its output to go back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


def test_layers_of_a_models_own_are_left_to_peft():
    base = llama()
    for layer in base.model.layers:
        layer.mlp.up_proj.__class__ = Bounded
    torch.manual_seed(0)
    model = with_weights(add_adapter(base, LORA))
    (logits, gradients), (expected, expected_gradients) = learnt(model), learnt(slow(model))
    assert num_branches(logits) == NUM_LAYERS[llama] - 2
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert_alike(gradients, expected_gradients)


def test_float32_adapters_on_a_16_bit_base_are_left_to_peft_without_autocast():
    layer = adapted(llama, 0.3).base_model.model.model.layers[0].mlp.up_proj
    layer.base_layer.bfloat16()
    x, outputs = torch.randn(2, 3, 64).bfloat16(), []
    for one in (layer, slow(layer)):
        torch.manual_seed(2)
        outputs.append(one(x))
    assert outputs[0].dtype == torch.bfloat16
    assert outputs[0].equal(outputs[1])
    assert num_branches(outputs[0]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [llama, nf4])
def test_under_autocast_the_branch_has_its_dtype_and_float32_gradients(build, dtype):
    """As near to float32 as peft is, which casts inputs to float32 and back."""
    model = adapted(build)
    _, exact = learnt(model)
    with torch.autocast("cpu", dtype, cache_enabled=False):
        (logits, ours), (_, theirs) = learnt(model), learnt(slow(model))
    assert num_branches(logits) == NUM_LAYERS[build]
    for name, gradient in exact.items():
        own, peft = ((found[name] - gradient).norm() / gradient.norm() for found in (ours, theirs))
        assert own < max(1.5 * peft, 0.02), name
        assert ours[name].dtype == torch.float32


@pytest.mark.parametrize("build", [llama, gpt2, nf4])
def test_evaluation_is_right_in_every_mode(build):
    model = adapted(build, 0.3).eval()
    other, ids = slow(model), torch.randint(1, 97, (2, 9))
    expected = other(input_ids=ids).logits
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    with model.disable_adapter(), other.disable_adapter(), torch.no_grad():
        base = model(input_ids=ids).logits
        assert base.equal(other(input_ids=ids).logits)
    assert not torch.allclose(base, expected, atol=1e-2)


@pytest.mark.parametrize("build", [llama, gpt2, nf4])
def test_activations_computed_again_give_the_same_gradients(build):
    model = adapted(build, 0.3)
    expected, again, other = learnt(model)[1], learnt(model, checkpointing=True)[1], learnt(model, seed=2)[1]
    assert_alike(again, expected)
    assert not torch.allclose(other["embedded"], expected["embedded"], rtol=1e-3)


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("build", [llama, gpt2])
def test_answers_read_at_few_places_teach_the_same(build, packs):
    labels = LabelTokens(("A", "B"), ((5,), (7, 8)), (("A",), ("B", "C")), 0)
    torch.manual_seed(0)
    rows = [EncodedPrompt(f"r{n}", n % 2, "", torch.randint(1, 97, (4 + 3 * n,)).numpy(), False) for n in range(6)]
    (batch,) = Batcher(LabelSoftmax(), labels, 10_000, packs=packs).batches(rows)
    found, model = [], adapted(build, 0.0)
    for one in (model, slow(model)):
        loss = LabelSoftmax().loss(one, batch, labels)
        one.zero_grad()
        loss.backward()
        found.append({name: p.grad for name, p in one.named_parameters() if p.requires_grad} | {"loss": loss.detach()})
    assert num_branches(loss) == 0
    assert_alike(*found)


def bytes_kept(model: nn.Module) -> int:
    """Of the activations that the backward pass needs, each storage once."""
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        model(inputs_embeds=torch.randn(2, 50, 64), use_cache=False)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in kept}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in own)


def test_less_is_kept_for_the_backward_pass():
    model = adapted(llama, 0.3)
    assert bytes_kept(model) < 0.9 * bytes_kept(slow(model))


def test_the_saved_adapter_is_one_of_peft(tmp_path):
    model = adapted(llama, 0.3).eval()
    for name, one in (("quick", model), ("slow", slow(model))):
        save_adapter(one, tmp_path / name)
    ours, theirs = tmp_path / "quick", tmp_path / "slow"
    assert (ours / "adapter_model.safetensors").read_bytes() == (theirs / "adapter_model.safetensors").read_bytes()
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
    modules = [sorted(config.pop("target_modules")) for config in configs]  # a set, in no order
    assert (configs[0], modules[0]) == (configs[1], modules[1])
    torch.manual_seed(0)
    loaded, ids = PeftModel.from_pretrained(llama(), tmp_path / "quick").eval(), torch.randint(1, 97, (2, 9))
    assert not any(isinstance(module, FastLayer) for module in loaded.modules())
    torch.testing.assert_close(model(input_ids=ids).logits, loaded(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [llama, gpt2, nf4])
@pytest.mark.parametrize("needs_input", [False, True])
def test_outputs_of_base_layers_are_written_to_where_they_are(build, needs_input):
    for module in adapted(build).modules():
        if isinstance(module, FastLayer):
            x = torch.randn(2, 3, next(iter(module.lora_A.values())).in_features, requires_grad=needs_input)
            output = module.base_layer(x)
            is_a_view_of_no_graph = build is nf4 and needs_input and module.base_layer.bias is not None
            assert (writable(output).data_ptr() == output.data_ptr()) != is_a_view_of_no_graph
            assert writable(output).requires_grad == needs_input


class Doubled(torch.autograd.Function):
    """The same numbers as a view, with a gradient that a view does not have."""

    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: (x * 1)[:2],
        lambda x: (x * 1).T,
        lambda x: (x * 1)[:, :1].expand(-1, 4),
        lambda x: (x * 1).view(2, 8).view(4, 4),
        lambda x: Doubled.apply(x * 1),
        lambda x: (x * 1).view(2, 8),
    ],
    ids=["leaf", "part", "transposed", "expanded", "two views", "another gradient", "view"],
)
def test_what_may_not_be_written_to_is_copied(make):
    x = torch.arange(16.0).view(4, 4).requires_grad_()
    values = x.detach().clone()
    (expected,) = torch.autograd.grad((make(x) * 1).square().sum(), x)
    written = writable(make(x))
    assert written.is_contiguous()
    with torch.no_grad():
        assert written.view(make(x).shape).equal(make(x))
    (found,) = torch.autograd.grad(written.mul_(1).square().sum(), x)
    assert found.equal(expected)
    assert x.equal(values)
