"""The loss of open answers against its plain definition: padding, packing, batches and order change nothing."""

import numpy as np
import pytest
import torch
import transformers

from nexttoken.engine.answerers import TextAnswerer, measure_losses
from nexttoken.engine.heads import AnswerText
from nexttoken.engine.text_losses import answer_losses, collate_texts, row_losses
from nexttoken.errors import UserError
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS, EncodedText
from nexttoken.prompts.prompt import Prompt
from nexttoken.training.neftune import noisy_embeddings
from nexttoken.training.steps import Batcher, TrainSteps
from nexttoken.types import Example

TINY = {"vocab_size": 97, "num_hidden_layers": 2, "max_position_embeddings": 128}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**TINY, **SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**TINY, **SIZES),
    "gemma2": lambda: transformers.Gemma2Config(**TINY, **SIZES, head_dim=8, sliding_window=8),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**TINY, hidden_size=32, intermediate_size=64, num_attention_heads=4),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=97, n_positions=128, n_embd=32, n_layer=2, n_head=4),
}


@pytest.fixture(params=CONFIGS)
def model(request) -> torch.nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).eval()


def rows(number: int = 9) -> list[EncodedText]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(number):
        ids = rng.integers(1, 97, 4 + 5 * n % 31).astype(np.int32)
        learnt = np.arange(len(ids)) >= 2 + n % 3
        learnt[len(ids) // 2] = n % 2 == 0  # an utterance in between that is only read
        found.append(EncodedText(f"r{n}", "", ids, learnt, was_cut=False))
    return found


def plainly(model: torch.nn.Module, row: EncodedText) -> float:
    """Full logits of the row alone."""
    ids = torch.as_tensor(row.token_ids, dtype=torch.long)
    with torch.no_grad():
        log_probs = model(ids[None]).logits[0].float().log_softmax(-1)
    return -sum(float(log_probs[place - 1, ids[place]]) for place in range(1, len(ids)) if row.learnt[place])


def test_losses_are_those_of_full_logits_row_by_row(model):
    num_tokens = np.array([row.num_targets for row in rows()])
    expected = np.array([plainly(model, row) for row in rows()]) / num_tokens
    for batch_tokens in (1, 60, 10_000):
        found = measure_losses(model, rows(), batch_tokens) / num_tokens
        np.testing.assert_allclose(found, expected, atol=1e-5)
    backwards = measure_losses(model, rows()[::-1], 60)[::-1] / num_tokens
    np.testing.assert_allclose(backwards, expected, atol=1e-5)


def test_packed_rows_do_not_see_each_other(model):
    expected = [plainly(model, row) for row in rows()]
    for packs in (True, False):
        with torch.no_grad():
            found = row_losses(model, collate_texts(rows(), packs))
        assert found.tolist() == pytest.approx(expected, abs=1e-3)


def test_packed_rows_get_the_noise_of_rows_that_stand_alone(monkeypatch):
    """Its size goes by a row's own length, not by that of the sequence which it shares."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    monkeypatch.setattr(torch, "rand_like", torch.ones_like)  # the largest noise that there is
    sizes = {}
    for name, batch in (("alone", collate_texts(rows())), ("packed", collate_texts(rows(), packs=True))):
        embed, token_ids = model.get_input_embeddings(), batch.layout.token_ids
        with noisy_embeddings(model, batch.layout, 5.0), torch.no_grad():
            noise = embed(token_ids) - embed.weight[token_ids]
        real = token_ids != 0
        sizes[name] = sorted(noise[real][:, 0].tolist())
    assert sizes["packed"] == pytest.approx(sizes["alone"], abs=1e-5)
    longest = max(len(row.token_ids) for row in rows())
    assert min(sizes["alone"]) == pytest.approx(5 / (longest * 32) ** 0.5, abs=1e-5)


def test_no_logits_are_made_that_nobody_reads():
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    sizes = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: sizes.append(tuple(logits.shape)))
    batch = collate_texts(rows())
    row_losses(model, batch)
    assert sizes == [(1, sum(row.num_targets for row in rows()), 97)]


def test_a_batch_of_halves_and_fillers():
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]()).eval()
    batch = collate_texts(rows(), packs=True)
    halves = torch.cat([row_losses(model, half) for half in batch.halves])
    torch.testing.assert_close(halves, row_losses(model, batch), atol=1e-5, rtol=0)
    assert answer_losses(model, batch.filler).sum().item() == 0
    assert collate_texts(rows()[:1]).halves[0].ids == ("r0",)


def test_a_step_is_the_mean_over_the_tokens_of_its_answers():
    """Whatever the micro-batches, and packed or not."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    num_tokens = sum(row.num_targets for row in rows())
    gradients = []
    for tokens, packed in ((10_000, False), (40, False), (100, True)):
        batcher = Batcher(AnswerText(), NO_LABELS, tokens, packs=packed)
        (step,) = TrainSteps(rows(), 9, 0, batcher)
        assert (step.num_rows, step.num_targets) == (9, num_tokens)
        model.zero_grad()
        for batch in step.batches:
            (AnswerText().loss(model, batch, NO_LABELS) / step.num_targets).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5, rtol=1e-4)


def test_of_an_answer_that_is_cut_only_what_was_read_counts(scratch):
    """Nats of its beginning over characters of the whole would look better than any model is."""
    encoder = TextEncoder(scratch.tokenizer, Prompt("{{ instruction[0] }}", ":"), 40)
    long, short = ("word " * 200, "word")
    examples = [Example(answer, {"instruction": ("Go.",)}, answer=answer) for answer in (long, short)]
    losses = TextAnswerer(scratch.model, encoder, 400)(examples)
    assert losses.num_characters[1] == 4
    assert 0 < losses.num_characters[0] < 200
    read = scratch.tokenizer(long, add_special_tokens=False)["input_ids"][: losses.num_tokens[0]]
    assert losses.num_characters[0] == len(scratch.tokenizer.decode(read))


def test_a_loss_that_is_not_finite_names_its_rows():
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    with pytest.raises(UserError, match="not finite for 9 rows"):
        measure_losses(model, rows(), 100)
