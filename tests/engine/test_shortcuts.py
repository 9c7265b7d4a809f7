"""Shortcuts are taken only where they change no number; they are tried on the model itself."""

import copy

import numpy as np
import pytest
import torch
import transformers

from nexttoken.engine.forward.output_head import reading_labels
from nexttoken.engine.forward.shortcuts import Shortcuts, share_shortcuts, shortcuts, skipping
from nexttoken.engine.heads import Classification, LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.training.steps import Batcher
from support import small_models

SMALL = small_models.SMALL | {"max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0}
LABELS = LabelTokens(("A", "B", "C"), ((5,), (7,), (11,)), (("A",), ("B",), ("C",)), 0)
LONG_LABELS = LabelTokens(("A", "B", "C"), ((5, 6), (7,), (9, 8, 4)), (("A",), ("B",), ("C",)), 0)


def build(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | options)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def rows_that_begin_alike(shared: int = 40) -> list[EncodedPrompt]:
    """Twelve rows with one beginning; the first six go on alike for a while, too."""
    draw = np.random.default_rng(0)
    first, second = draw.integers(1, 97, shared), draw.integers(1, 97, shared)
    found = []
    for n in range(12):
        own = draw.integers(1, 97, 3 + 2 * n)
        ids = np.concatenate([first, *([second] if n < 6 else []), own]).astype(np.int32)
        found.append(EncodedPrompt(f"r{n}", n % 3, "", ids, False))
    return found


@pytest.mark.parametrize("labels", [LABELS, LONG_LABELS], ids=["one token", "several tokens"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("Llama", {}), ("Gemma2", {"sliding_window": 16}), ("Mistral", {"sliding_window": 16}), ("GPTNeoX", {})],
)
def test_shared_beginnings_change_no_probability(name, options, labels):
    """Read once for all rows, and a second time in groups; in any batch size, and in any order."""
    model, rows = build(name, **options), rows_that_begin_alike()
    expected = predict_labels(model, LabelSoftmax(), rows, labels, 1, share_prefixes=False).probs
    for batch_tokens in (1, 150, 10_000):
        for order in (np.arange(12), np.random.default_rng(1).permutation(12)):
            found = predict_labels(model, LabelSoftmax(), [rows[n] for n in order], labels, batch_tokens).probs
            np.testing.assert_allclose(found, expected[order], atol=2e-6)


def tokens_read(model: torch.nn.Module, rows: list[EncodedPrompt], **options) -> int:
    sizes = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].numel()))
    predict_labels(model, LabelSoftmax(), rows, LABELS, 10_000, **options)
    handle.remove()
    return sum(sizes)


def test_what_is_shared_is_read_once():
    model, rows = build("Llama"), rows_that_begin_alike()
    shortcuts(model)
    total = sum(len(row.token_ids) for row in rows)
    assert tokens_read(model, rows, share_prefixes=False) == total
    assert tokens_read(model, rows) == total - 11 * 40 - 5 * 40


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("Bloom", {"n_head": 4, "n_layer": 2}, False),  # positions are in the scores of attention
        ("GptOss", {"sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, False),  # sinks
        ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}, True),
        ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, True),
    ],
)
def test_what_cannot_be_packed_is_padded_and_gives_the_same(name, options, expected):
    model, rows = build(name, **options), rows_that_begin_alike()[::3]
    assert shortcuts(model).packs == expected
    found = predict_labels(model, LabelSoftmax(), rows, LABELS, 10_000).probs
    with torch.inference_mode():
        alone = [model(torch.as_tensor(row.token_ids[None], dtype=torch.long)).logits[0, -1] for row in rows]
    expected_probs = torch.stack(alone)[:, [5, 7, 11]].softmax(-1)
    np.testing.assert_allclose(found, expected_probs, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Phimoe", {"sliding_window": 16, "num_local_experts": 2, "num_experts_per_tok": 1}),
        (
            "Qwen2Moe",
            {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["sliding_attention"] * 2}
            | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
        ),
    ],
)
def test_a_window_that_only_the_mask_knows_is_not_lost(name, options):
    model, rows = build(name, **options), rows_that_begin_alike()[::3]
    found = predict_labels(model, LabelSoftmax(), rows, LABELS, 10_000).probs
    with torch.inference_mode():
        alone = [model(torch.as_tensor(row.token_ids[None], dtype=torch.long)).logits[0, -1] for row in rows]
    np.testing.assert_allclose(found, torch.stack(alone)[:, [5, 7, 11]].softmax(-1), atol=2e-6)


def test_positions_that_long_rows_stretch_are_the_same_for_their_beginning():
    """Rows of 83 tokens and more, where 64 are the most before rotary positions change; their 40 first are shared."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 4.0}
    rope |= {"rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    model = build("Phi3", rope_parameters=rope, original_max_position_embeddings=64)
    rows = [row for row in rows_that_begin_alike() if len(row.token_ids) > 64]
    expected = predict_labels(model, LabelSoftmax(), rows, LABELS, 1, share_prefixes=False).probs
    found = predict_labels(model, LabelSoftmax(), rows, LABELS, 10_000).probs
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_vocabulary_may_be_smaller_than_the_rows_that_are_tried():
    assert shortcuts(build("Llama", vocab_size=13)) == Shortcuts(True, True)


def test_copies_are_not_tried_themselves():
    model, calls = build("Llama"), []
    twin = copy.deepcopy(model)
    twin.model.register_forward_pre_hook(lambda *_: calls.append(1))
    share_shortcuts(model, [twin])
    assert shortcuts(twin) == shortcuts(model) == Shortcuts(True, True)
    assert not calls


def test_masks_of_a_batch_go_with_it():
    """Dev batches live as long as the run; moved to the device anew each time, they must not collect masks there."""
    model, rows = build("Gemma2", sliding_window=16), rows_that_begin_alike()
    (batch,) = Batcher(LabelSoftmax(), LABELS, 10_000, packs=True).batches(rows)
    moved = batch.to(torch.device("cpu"))
    LabelSoftmax().scores(model, moved, LABELS)
    assert moved.layout.segments._masks
    assert not batch.layout.segments._masks


class Leaky(transformers.LlamaForCausalLM):
    """A model whose places look at the mean of all places."""

    def __init__(self, config):
        super().__init__(config)
        self.model.embed_tokens.register_forward_hook(lambda _, __, embedded: embedded + embedded.mean(1, keepdim=True))


def test_a_model_that_mixes_rows_is_not_packed():
    torch.manual_seed(0)
    assert shortcuts(Leaky(transformers.LlamaConfig(**SMALL))) == Shortcuts()


def test_the_last_layer_is_computed_where_it_is_read():
    model, rows, sizes = build("Llama"), rows_that_begin_alike(), []
    shortcuts(model)
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda _, __, output: sizes.append(output.shape[1]))
    predict_labels(model, LabelSoftmax(), rows, LABELS, 10_000, share_prefixes=False)
    assert sizes == [sum(len(row.token_ids) for row in rows), 12]


@pytest.mark.parametrize("head", [LabelSoftmax(), Classification()], ids=lambda head: type(head).__name__)
def test_gradients_are_the_same_with_activations_computed_again(head):
    """Packed rows keep their attention on the way back, when checkpointed layers run a second time."""
    torch.manual_seed(0)
    kind = transformers.LlamaForSequenceClassification if head.num_outputs(LABELS) else transformers.LlamaForCausalLM
    model, gradients = kind(transformers.LlamaConfig(**SMALL, num_labels=3)).train(), []
    for packs, checkpointed in ((False, False), (True, False), (True, True)):
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        for batch in Batcher(head, LABELS, 10_000, packs=packs).batches(rows_that_begin_alike()):
            with skipping(model, batch.reads), batch.layout.attending(model):
                head.loss(model, batch, LABELS).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-5 * float(gradients[0].abs().max()), rtol=1e-3)


def four_bit(model: torch.nn.Module) -> torch.nn.Module:
    """The output head in 4 bits, which loading leaves whole."""
    from bitsandbytes.nn import Linear4bit

    old = model.lm_head
    model.lm_head = Linear4bit(old.in_features, old.out_features, bias=False, quant_type="nf4")
    model.lm_head.load_state_dict({"weight": old.weight})
    return model.to("cpu")


def with_adapter(model: torch.nn.Module) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    return adapted.eval()


def saved_whole(model: torch.nn.Module) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])).eval()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("change", "computed"), [(four_bit, 3), (with_adapter, 3), (saved_whole, 3)], ids=["4bit", "adapter", "saved"]
)
def test_heads_of_every_kind_give_their_full_logits(change, computed):
    """Four bits are unpacked for the labels alone, and of an adapter only their rows are multiplied."""
    model = change(build("Llama", hidden_size=64, tie_word_embeddings=False))
    ids, reads, columns = torch.randint(1, 97, (2, 9)), torch.tensor([4, 8, 17]), [5, 7, 11]
    whole = model(input_ids=ids).logits.flatten(0, 1)[reads][:, columns]
    sizes = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    for _ in range(2):
        with reading_labels(model, reads, columns):
            found = model(input_ids=ids).logits[0]
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert sizes == [computed] * 2
    assert whole.std() > 0.05


def test_a_head_that_was_unpacked_for_dev_rows_is_learnt_through():
    model = four_bit(build("Llama", hidden_size=64, tie_word_embeddings=False))
    ids, reads = torch.randint(1, 97, (2, 9)), torch.tensor([4, 8])
    with torch.inference_mode(), reading_labels(model, reads, [5, 7]):
        model(input_ids=ids)
    with reading_labels(model, reads, [5, 7]):
        model(input_ids=ids).logits.sum().backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


class Doubling(torch.nn.Linear):
    """A head whose outputs are not only those of its weights."""

    def forward(self, hidden):
        return 2 * super().forward(hidden)


def test_a_head_with_a_forward_of_its_own_keeps_it():
    """Be it the class's, or the one that accelerate hangs on the module."""
    model = build("Llama", tie_word_embeddings=False)
    model.lm_head.__class__ = Doubling
    ids, reads = torch.randint(1, 97, (2, 9)), torch.tensor([4, 8])
    whole = model(input_ids=ids).logits.flatten(0, 1)[reads][:, [5, 7]]
    with reading_labels(model, reads, [5, 7]):
        torch.testing.assert_close(model(input_ids=ids).logits[0], whole)
    hung = model.lm_head.forward = lambda hidden: 3 * hidden @ model.lm_head.weight.T
    with reading_labels(model, reads, [5, 7]):
        torch.testing.assert_close(model(input_ids=ids).logits[0], 1.5 * whole)
    assert model.lm_head.forward is hung
