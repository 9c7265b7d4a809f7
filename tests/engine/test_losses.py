"""Losses over a whole vocabulary in pieces equal those of all logits at once, gradients too."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from nexttoken.engine.forward import output_head
from nexttoken.engine.forward.layout import Pieces
from nexttoken.engine.forward.output_head import token_losses
from nexttoken.engine.label_scores import UNKNOWN, collate
from nexttoken.engine.text_losses import text_loss
from nexttoken.prompts.encode_labels import EncodedPrompt
from support import small_models

VOCABULARY = small_models.SMALL["vocab_size"]
SMALL = small_models.SMALL | {"max_position_embeddings": 64}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ARCHITECTURES = {
    "Llama": SMALL,
    "Qwen2": SMALL | {"tie_word_embeddings": True},
    "Gemma2": SMALL | {"final_logit_softcapping": 3.0, "sliding_window": 8},
    "Gemma3Text": SMALL | {"sliding_window": 8},
    "Cohere": SMALL | {"logit_scale": 0.3},
    "Granite": SMALL | {"logits_scaling": 7.0},
    "Phi": SMALL,  # its head has a bias
    "Mixtral": SMALL,
    "GPTNeoX": SMALL,
    "GPT2": GPT2,
}
LENGTHS = (19, 7, 30, 12)


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def drawn(length: int) -> list[int]:
    return np.random.default_rng(length).integers(1, VOCABULARY, length).tolist()


def laid_out(packs: bool):
    """The layout of some rows, the places in front of every other token, and these tokens."""
    pieces = Pieces()
    for length in LENGTHS:
        pieces.add(drawn(length))
    layout = pieces.packed() if packs else pieces.padded()
    reads = torch.cat(
        [torch.arange(0, size - 1, 2) + start for start, size in zip(layout.starts, LENGTHS, strict=True)]
    )
    return layout, reads, layout.token_ids.flatten()[reads + 1]


def learnt(model, found: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    (found * torch.linspace(0.5, 2, len(found))).sum().backward()
    return found.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pieces_give_the_losses_and_gradients_of_all_logits(name, packs, monkeypatch):
    model, (layout, reads, targets) = build(name), laid_out(packs)
    plain = torch.cat([model(torch.tensor([drawn(n)])).logits[0, : n - 1 : 2] for n in LENGTHS])
    expected, gradients = learnt(model, cross_entropy(plain, targets, reduction="none"))
    sizes: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: sizes.append(logits.shape[1]))
    monkeypatch.setattr(output_head, "CHUNK", 10 * VOCABULARY)
    found, own = learnt(model, token_losses(model, layout, reads, targets))
    assert sizes[:4] == [10, 10, 10, 3]
    assert sorted(sizes[4:]) == [3, 10, 10, 10]  # once more on the way back
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert own.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(own[key], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7, rtol=0)


def _keep(shapes: list, tensor: torch.Tensor) -> torch.Tensor:
    shapes.append(tuple(tensor.shape))
    return tensor


def test_less_memory_is_held_for_the_way_back(monkeypatch):
    """Bytes that autograd keeps of what follows the hidden states: with pieces no logits among them."""
    model, (layout, reads, targets) = build("Llama"), laid_out(packs=True)
    kept = []
    for piece in (output_head.CHUNK, 10 * VOCABULARY):
        monkeypatch.setattr(output_head, "CHUNK", piece)
        saved: list[tuple[int, ...]] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, own=saved: own.append(tuple(t.shape)) or t, lambda t: t
        ):
            token_losses(model, layout, reads, targets)
        kept.append(any(shape[-1:] == (VOCABULARY,) and len(shape) < 4 for shape in saved))
    assert kept == [True, False]


def test_few_places_take_one_piece_and_nothing_twice():
    model, sizes = build("Llama"), []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: sizes.append(tuple(logits.shape)))
    learnt(model, token_losses(model, *laid_out(packs=True)))
    assert sizes == [(1, 33, VOCABULARY)]


class Other(transformers.LlamaForCausalLM):
    """Of another make: its decoder's layers are nobody's business."""

    def forward(self, input_ids, **_):
        hidden = self.model.embed_tokens(input_ids)
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=self.lm_head(hidden))


OPT = {"vocab_size": VOCABULARY, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "init_std": 0.25,
}


@pytest.mark.parametrize(
    ("kind", "config"),
    [(transformers.OPTForCausalLM, transformers.OPTConfig(**OPT)), (Other, transformers.LlamaConfig(**SMALL))],
    ids=["OPT", "Other"],
)
def test_a_model_that_passes_its_decoder_by_is_computed_whole(kind, config, monkeypatch):
    """OPT calls a part of it."""
    torch.manual_seed(0)
    model, (layout, reads, targets) = kind(config).eval(), laid_out(packs=False)
    plain = torch.cat([model(torch.tensor([drawn(n)])).logits[0, : n - 1 : 2] for n in LENGTHS])
    monkeypatch.setattr(output_head, "CHUNK", 10 * VOCABULARY)
    found = token_losses(model, layout, reads, targets)
    torch.testing.assert_close(found, cross_entropy(plain, targets, reduction="none"), atol=1e-5, rtol=0)


def mean_loss(model, row: list[int]) -> torch.Tensor:
    return cross_entropy(model(torch.tensor([row])).logits[0, :-1], torch.tensor(row[1:]))


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_the_language_is_learnt_from_each_rows_own_tokens(packs, monkeypatch):
    model, rows = build("Llama"), [drawn(length) for length in LENGTHS]
    prompts = [EncodedPrompt(f"r{n}", n % 2, "", np.array(row, np.int32), False) for n, row in enumerate(rows)]
    labels = (4,), (5, 6)
    batch = collate(prompts, labels, packs)
    batch.labels[1] = UNKNOWN
    plain = [mean_loss(model, row) for row in rows]
    if not packs:  # each row stands there once with every label behind it
        plain = [sum(mean_loss(model, [*row, *label]) for label in labels) / 2 for row in rows]
    expected = sum(own for n, own in enumerate(plain) if n != 1)
    for piece in (output_head.CHUNK, 10 * VOCABULARY):
        monkeypatch.setattr(output_head, "CHUNK", piece)
        torch.testing.assert_close(text_loss(model, batch), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("piece", [output_head.CHUNK, 10 * VOCABULARY], ids=["at once", "pieces"])
def test_the_language_is_learnt_where_activations_are_not_kept(piece, monkeypatch):
    """Layers run again on the way back, and as they ran before."""
    monkeypatch.setattr(output_head, "CHUNK", piece)
    prompts = [EncodedPrompt(f"r{n}", 0, "", np.array(drawn(n), np.int32), False) for n in LENGTHS]
    batch, gradients = collate(prompts, ((),), packs=True), []
    for recomputes in (False, True):
        model = build("Llama").train()
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with batch.layout.attending(model):
            text_loss(model, batch).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-5)
