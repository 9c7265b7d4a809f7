"""Reading only where the answer stands equals reading everything, for every architecture and in any company."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from nexttoken.engine.forward.output_head import reading, reading_labels
from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.shortcuts import Shortcuts, shortcuts
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import LabelAnswerer, mass_outside, predict_labels
from nexttoken.engine.label_scores import (
    UNKNOWN,
    Batch,
    answer_logits,
    collate,
    label_scores,
    num_read,
    sequence_scores,
    votes_of,
)
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import load_model
from nexttoken.models.precision import compute_in
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import ModelSettings, QuantizationSettings
from support import small_models
from support.composed import settings
from support.layouts import first_piece, tokens_before

VOCABULARY = small_models.SMALL["vocab_size"]
SMALL = small_models.SMALL | {"max_position_embeddings": 64}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.25}
ARCHITECTURES = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {"tie_word_embeddings": True},
    "Gemma2": {"final_logit_softcapping": 3.0, "sliding_window": 8},
    "Gemma3": {"sliding_window": 8},
    "Qwen3": {},
    "Cohere": {"logit_scale": 0.3},
    "Granite": {"logits_scaling": 7.0},
    "Phi": {},  # its head has a bias
    "Phi3": {"bos_token_id": 0, "eos_token_id": 0},
    "GPTNeoX": {},
    "GPT2": {},
}
CONTINUATIONS = {
    "one token": ((5,), (7,), (11,)),
    "different lengths": ((5, 6), (7,), (9, 8, 4)),
    "one starts another": ((5,), (5, 6), (5, 6, 4)),
    "shared beginnings": ((5, 6), (5, 8), (9, 8, 4), (9, 8, 3), (1,)),
}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    options = GPT2 if name == "GPT2" else SMALL
    kind = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    config = getattr(transformers, kind)(**options | ARCHITECTURES[name])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request) -> torch.nn.Module:
    return build(request.param)


@pytest.fixture(scope="module")
def llama() -> torch.nn.Module:
    return build("Llama")


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def packs(request) -> bool:
    return request.param


@pytest.fixture(params=CONTINUATIONS)
def tokens(request) -> LabelTokens:
    return label_tokens(CONTINUATIONS[request.param])


def label_tokens(continuations) -> LabelTokens:
    names = tuple(map(str, continuations))
    return LabelTokens(names, continuations, tuple((name,) for name in names), 0)


def random_prompts(num_rows: int = 12) -> list[EncodedPrompt]:
    draw = np.random.default_rng(0)
    sizes = draw.permutation(np.linspace(1, 40, num_rows).astype(int))
    return [
        EncodedPrompt(f"row{n}", n % 3, "", draw.integers(1, VOCABULARY, size).astype(np.int32), False)
        for n, size in enumerate(sizes)
    ]


def prompt_of(*token_ids: int, label: int | None = 0, num_options: int | None = None, votes=()) -> EncodedPrompt:
    return EncodedPrompt("x", label, "", np.array(token_ids, np.int32), False, num_options, votes=votes)


ONE, OTHER = KeyValues(2), KeyValues(2)
LONG = tuple(range(10, 50))  # a beginning that pays to be shared
ALIKE = [prompt_of(*LONG, 1, 2), prompt_of(*LONG, 1, 3, 4), prompt_of(*LONG, 5), prompt_of(6), prompt_of(*LONG, 7)]


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize(
    ("prefixes", "num_shared"),
    [
        ((), 40 + 40),
        ((ONE, ONE, ONE, None, None), 38 + 38),
        ((ONE, ONE, OTHER, None, OTHER), 39),  # two begin alike; the third has the same tokens after another cache
        ((ONE, OTHER, ONE, None, OTHER), 0),
    ],
)
def test_a_place_sees_its_own_prompt_and_label_and_nothing_else(tokens, prefixes, num_shared, shares):
    """Behind whatever stands in a cache, and with the beginning of a neighbour in place of its own."""
    batch = collate(ALIKE, tokens.contexts, True, prefixes, shares)
    check_places(batch, prefixes or (None,) * len(ALIKE))
    cached = sum(0 if cache is None else cache.length for cache in prefixes)
    num_tokens = sum(num_read(tokens.contexts, len(prompt.token_ids), packs=True) for prompt in ALIKE)
    assert batch.layout.token_ids.numel() == num_tokens - cached - num_shared * shares


def test_a_padded_place_sees_its_own_prompt_and_label_and_nothing_else(tokens):
    check_places(collate(ALIKE, tokens.contexts), (None,) * len(ALIKE))


def check_places(batch: Batch, prefixes: tuple[KeyValues | None, ...]) -> None:
    assert batch.reads.tolist() == sorted({*batch.reads.tolist()}), "each place is computed once"
    assert min(batch.layout.lengths) > 0, "no call of the kernel for nothing"
    assert batch.places.shape == (len(batch.rows), len(batch.contexts), 1 + max(map(len, batch.contexts)))
    for prompt, prefix, places in zip(batch.rows, prefixes, batch.reads[batch.places].tolist(), strict=True):
        for context, steps in zip(batch.contexts, places, strict=True):
            for step, place in enumerate(steps):
                text = [*prompt.token_ids.tolist(), *context[:step]]  # a shorter label repeats its end
                assert tokens_before(batch.layout, place) == text[0 if prefix is None else prefix.length :]
                if batch.packs:
                    assert batch.layout.position_ids[0, place] == len(text) - 1
                    assert batch.layout.segments.prefixes[first_piece(batch.layout, place)] is prefix


def test_every_prompt_has_a_cache_or_none():
    with pytest.raises(ValueError, match="zip"):
        collate(ALIKE, ((),), True, (ONE,))


def test_the_keys_and_values_of_a_batch_are_saved_where_asked():
    saved = KeyValues(0)
    assert collate(ALIKE, ((),), True, saved=saved).layout.segments.saved is saved


def test_a_batch_is_planned_with_the_tokens_that_it_reads(tokens, packs):
    layout = collate([prompt_of(1, 2, 3)], tokens.contexts, packs).layout
    assert layout.token_ids.numel() == num_read(tokens.contexts, 3, packs)
    assert num_read(((5,), (6, 7)), 3) == 2 * (3 + 2), "padded, unless asked otherwise"


def test_a_batch_says_what_its_prompts_say(packs):
    prompts = [prompt_of(1, label=2, num_options=3), prompt_of(2, 3, label=None), prompt_of(4, num_options=1)]
    named = [replace(prompt, id=name) for prompt, name in zip(prompts, "abc", strict=True)]
    contexts = (5, 6), (7, 8, 9)
    batch = collate(named, contexts, packs)
    assert (batch.ids, batch.rows, batch.contexts, batch.packs) == (("a", "b", "c"), tuple(named), contexts, packs)
    check_places(batch, (None,) * 3)
    assert batch.labels.tolist() == [2, UNKNOWN, 0]
    assert batch.votes is None
    scores = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    none = -torch.inf
    assert batch.only_options(scores).tolist() == [[1, 2, 3, none], [5, 6, 7, 8], [9, none, none, none]]
    assert batch.filler.labels.tolist() == [UNKNOWN] * 3


def test_the_halves_of_a_batch_are_batches_of_half_its_prompts(tokens, packs):
    batch = collate(ALIKE, tokens.contexts, packs)
    first, second = batch.halves
    assert first.rows + second.rows == batch.rows
    assert len(first.rows) == 2
    for half in (first, second):
        check_places(half, (None,) * len(half.rows))
        assert (half.contexts, half.packs) == (batch.contexts, packs)
    assert [half.labels.tolist() for half in batch.filler.halves] == [[UNKNOWN] * 2, [UNKNOWN] * 3]
    one = collate(ALIKE[:1], tokens.contexts, packs)
    assert one.halves == [one]


def test_a_batch_is_padded_and_computes_all_of_it_unless_asked_otherwise():
    assert not collate(ALIKE, ((),)).packs
    assert collate(ALIKE, ((),), packs=True).layout.lengths == tuple(len(prompt.token_ids) for prompt in ALIKE)


@pytest.mark.parametrize("votes", [(), (0.5, 0.5)])
def test_a_batch_goes_to_a_device_as_a_whole(packs, votes):
    """And what is computed from it stays there."""
    batch = collate([prompt_of(1, 2, votes=votes), prompt_of(3)], ((5,), (6, 7)), packs).to(torch.device("meta"))
    tensors = [batch.layout.token_ids, batch.reads, batch.places, batch.labels, batch.num_options]
    tensors += [batch.votes] if votes else []
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.only_options(torch.zeros(2, 4, device="meta")).device.type == "meta"
    assert (batch.votes is None) is not bool(votes)


def test_votes_are_shares_of_the_classes_and_a_label_without_votes_has_all():
    prompts = [prompt_of(1, votes=(0.75, 0.25)), prompt_of(1, label=3), prompt_of(1, label=None)]
    expected = torch.tensor([[0.75, 0.25, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    torch.testing.assert_close(votes_of(prompts), expected)
    torch.testing.assert_close(collate(prompts, ((),)).votes, expected)
    torch.testing.assert_close(votes_of([prompt_of(1, votes=(1.0,))]), torch.ones(1, 1))
    assert votes_of([prompt_of(1, label=3)]) is None


def test_a_label_has_the_probability_of_its_tokens_less_that_of_longer_labels():
    """Probabilities by hand: after the prompt, after token 1, and after tokens 1 0, for two prompts."""
    tokens = label_tokens(((1,), (1, 0), (1, 0, 2), (2,), (1, 2)))
    assert tokens.contexts == ((1, 0),)
    first = [[0.1, 0.8, 0.1], [0.5, 0.2, 0.3], [0.25, 0.25, 0.5]]
    second = [[0.2, 0.2, 0.6], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]]
    scores = sequence_scores(torch.tensor([[first], [second]]).log() + 3, tokens)
    begun = [0.8, 0.8 * 0.5, 0.8 * 0.5 * 0.5, 0.1, 0.8 * 0.3], [0.2, 0.2 * 0.1, 0.2 * 0.1 * 0.1, 0.6, 0.2 * 0.6]
    exact = [[one - ten - twelve, ten - last, last, two, twelve] for one, ten, last, two, twelve in begun]
    torch.testing.assert_close(scores.exp(), torch.tensor(exact))


def test_a_label_that_always_goes_on_as_a_longer_one_has_a_finite_score():
    """Its probability is 0; a loss of infinity or nan would end a training."""
    tokens = label_tokens(((1,), (1, 0)))
    certain = torch.tensor([[[[0.0, 100, 0], [200, 0, 0]]]])
    (never, always), *_ = sequence_scores(certain, tokens).tolist()
    assert -20 < never < -10
    assert always == pytest.approx(0)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_labels_are_read_in_the_products_of_their_model_and_in_no_others(dtype):
    """A model that is trained in 16 bit is read in 16 bit; the logits are float32 all the same."""
    model, seen = build("Llama"), []
    shortcuts(model)
    compute_in(model, dtype)
    model.model.layers[0].mlp.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    assert answer_logits(model, collate(random_prompts(2), ((),))).dtype == torch.float32
    assert seen == [dtype or torch.float32]


@torch.inference_mode()
def test_the_score_of_a_one_token_label_is_its_logit(llama):
    tokens, batch = label_tokens(CONTINUATIONS["one token"]), collate(random_prompts(), ((),))
    whole = answer_logits(llama, batch)[:, 0, 0]
    torch.testing.assert_close(label_scores(llama, batch, tokens), whole[:, [5, 7, 11]], atol=1e-6, rtol=1e-6)


def plain_score(model: torch.nn.Module, prompt: EncodedPrompt, label: tuple[int, ...]) -> torch.Tensor:
    """The label's log-probability after one prompt, from all logits of prompt + label alone."""
    ids = torch.tensor([[*prompt.token_ids.tolist(), *label]])
    log_probs = model(input_ids=ids).logits.float().log_softmax(dim=-1)
    start = len(prompt.token_ids) - 1
    return torch.stack([log_probs[0, start + step, token] for step, token in enumerate(label)]).sum()


def plain_scores(model: torch.nn.Module, prompts: list[EncodedPrompt], tokens: LabelTokens) -> torch.Tensor:
    return torch.stack([torch.stack([plain_score(model, p, ids) for ids in tokens.continuations]) for p in prompts])


def exact_scores(model: torch.nn.Module, prompts: list[EncodedPrompt], tokens: LabelTokens) -> torch.Tensor:
    """log of: the probability of a label less that of the next longer labels which begin with it."""
    probs = plain_scores(model, prompts, tokens).exp()
    if tokens.continuations == CONTINUATIONS["one starts another"]:
        probs = torch.stack([probs[:, 0] - probs[:, 1], probs[:, 1] - probs[:, 2], probs[:, 2]], dim=1)
    return probs.log()


@torch.inference_mode()
def test_the_mass_outside_the_labels_is_what_a_plain_softmax_leaves(llama, tokens):
    prompts = random_prompts()
    left = 1 - exact_scores(llama, prompts, tokens).exp().sum(dim=1)
    np.testing.assert_allclose(mass_outside(llama, prompts, tokens, 128), left.numpy(), atol=1e-6)
    assert left.min() > 0.5
    assert left.max() < 1


def test_every_architecture_of_the_model_configurations_takes_all_shortcuts(model):
    assert shortcuts(model) == Shortcuts(packs=True, skips=True)


@torch.inference_mode()
def test_logits_are_those_of_the_full_forward(model):
    ids = torch.randint(1, VOCABULARY, (3, 21))
    reads, columns = torch.tensor([3, 20, 21, 22, 49]), [5, 96, 0]
    whole = model(input_ids=ids).logits.flatten(0, 1)[reads]
    with reading(model, reads):
        read = model(input_ids=ids).logits
    with reading_labels(model, reads, columns):
        narrow = model(input_ids=ids).logits
    torch.testing.assert_close(read[0], whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(narrow[0], whole[:, columns], atol=1e-6, rtol=1e-6)
    assert whole.std() > 0.05
    assert model(input_ids=ids).logits.shape == (3, 21, VOCABULARY), "afterwards the model is as it was"


@torch.inference_mode()
@pytest.mark.parametrize("name", ["Gemma2", "Cohere", "Granite"])
def test_what_stands_behind_the_head_applies(name):
    """The cap or scale moves these logits, so the comparison above would show its absence."""
    model, from_head = build(name), []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: from_head.append(output))
    logits = answer_logits(model, collate(random_prompts(), ((),), packs=True), [5, 7, 11])[:, 0, 0]
    assert from_head[0].shape == (1, 12, 3)
    assert (logits - from_head[0][0]).abs().max() > 0.1


@torch.inference_mode()
def test_the_head_runs_at_the_answer_and_for_the_labels_only(model, packs):
    """Not over the rows, and not over the vocabulary: no logits are made that nobody reads."""
    batch, shapes = collate(random_prompts(), ((),), packs), []
    shortcuts(model)
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: shapes.append((tuple(inputs[0].shape), tuple(output.shape)))
    )
    logits = answer_logits(model, batch, [5, 7, 11])
    handle.remove()
    assert shapes == [((1, 12, 32), (1, 12, 3))]
    assert logits.shape == (12, 1, 1, 3)


@torch.inference_mode()
def test_labels_of_several_tokens_share_their_prompt(model, tokens):
    """Packed, each prompt is read once, and each context behind it."""
    prompts = random_prompts()
    batch = collate(prompts, tokens.contexts, packs=True)
    num_tokens = sum(len(prompt.token_ids) + sum(map(len, tokens.contexts)) for prompt in prompts)
    assert batch.layout.token_ids.shape == (1, num_tokens)
    assert batch.layout.num_padding == 0
    padded = answer_logits(model, collate(prompts, tokens.contexts))
    torch.testing.assert_close(answer_logits(model, batch), padded, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_scores_are_sums_of_log_probabilities_row_by_row(model, tokens, packs):
    """Less what goes on as a longer label, in training as in reading: else "10" would be learnt at the cost of "1"."""
    prompts = random_prompts()
    scores = label_scores(model, collate(prompts, tokens.contexts, packs), tokens, whole_vocabulary=True)
    tolerance = 1e-3 if tokens.continuations == CONTINUATIONS["one starts another"] else 2e-5  # of a difference
    torch.testing.assert_close(scores, exact_scores(model, prompts, tokens), atol=tolerance, rtol=tolerance)


@torch.inference_mode()
def test_labels_that_begin_others_exclude_them(model):
    """ "1" is not right because "10" is: what goes on as a longer label is taken off the shorter one."""
    tokens, prompts = label_tokens(CONTINUATIONS["one starts another"]), random_prompts()
    scores = label_scores(model, collate(prompts, tokens.contexts, packs=True), tokens)
    torch.testing.assert_close(scores, exact_scores(model, prompts, tokens), atol=1e-3, rtol=1e-3)
    first = plain_score(model, prompts[0], tokens.continuations[0])
    assert abs(scores[0].logsumexp(0) - first) < 1e-4, "together they are all texts that begin so"


@torch.inference_mode()
def test_absent_options_have_probability_zero_and_the_others_share_it(llama):
    tokens, prompts = label_tokens(CONTINUATIONS["one token"]), random_prompts()
    two = [replace(prompt, num_options=2) if row % 2 else prompt for row, prompt in enumerate(prompts)]
    whole = predict_labels(llama, LabelSoftmax(), prompts, tokens, 1000).probs
    masked = predict_labels(llama, LabelSoftmax(), two, tokens, 1000).probs
    np.testing.assert_array_equal(masked[1::2, 2], 0)
    np.testing.assert_allclose(masked[1::2, :2], whole[1::2, :2] / whole[1::2, :2].sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(masked[::2], whole[::2], atol=1e-6)


@torch.inference_mode()
def test_one_token_labels_need_no_vocabulary(llama):
    """The softmax over labels is the same from logits and from log-probabilities."""
    tokens = label_tokens(CONTINUATIONS["one token"])
    batch = collate(random_prompts(), tokens.contexts)
    from_logits, from_log_probs = (label_scores(llama, batch, tokens, whole).softmax(-1) for whole in (False, True))
    torch.testing.assert_close(from_logits, from_log_probs, atol=1e-6, rtol=1e-5)


def test_padding_batch_size_and_order_change_nothing(model, tokens):
    prompts = random_prompts()
    together = predict_labels(model, LabelSoftmax(), prompts, tokens, batch_tokens=100_000)
    assert together.ids == tuple(p.id for p in prompts)
    assert together.probs.dtype == np.float64
    np.testing.assert_allclose(together.probs.sum(axis=1), 1, atol=1e-12)
    order = np.random.default_rng(1).permutation(len(prompts))
    for batch_tokens in (1, 97, 300):
        shuffled = predict_labels(model, LabelSoftmax(), [prompts[i] for i in order], tokens, batch_tokens)
        assert shuffled.ids == tuple(prompts[i].id for i in order)
        np.testing.assert_allclose(shuffled.probs, together.probs[order], atol=1e-6)


def test_no_more_than_batch_tokens_go_through_the_model(llama, tokens):
    sizes = []
    handle = llama.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    predict_labels(llama, LabelSoftmax(), random_prompts(), tokens, batch_tokens=200)
    handle.remove()
    assert max(sizes) <= 200
    assert len(sizes) < 12, "rows share batches"


def test_predicting_leaves_the_mode_as_it_was(llama):
    tokens = label_tokens(CONTINUATIONS["one token"])
    for training in (True, False):
        llama.train(training)
        predict_labels(llama, LabelSoftmax(), random_prompts(2), tokens, 100)
        assert llama.training is training


def test_gradients_are_those_of_the_full_logits(model, tokens, packs):
    prompts = random_prompts(5)
    labels = torch.tensor([p.label for p in prompts])
    losses = (
        cross_entropy(label_scores(model, collate(prompts, tokens.contexts, packs), tokens), labels),
        cross_entropy(exact_scores(model, prompts, tokens), labels),
    )
    read, plain = (torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) for loss in losses)
    largest = max(gradient.abs().max() for gradient in plain)
    assert largest > 1e-3
    for (name, _), ours, theirs in zip(model.named_parameters(), read, plain, strict=True):
        torch.testing.assert_close(
            ours, theirs, atol=1e-5 * float(largest), rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


class OwnProjection(transformers.LlamaForCausalLM):
    """A model that multiplies by its head's weights without calling the head, as some models with own code do."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False, **packed):
        hidden = self.model(input_ids=input_ids, use_cache=use_cache, **packed).last_hidden_state
        return transformers.modeling_outputs.CausalLMOutput(logits=hidden @ self.lm_head.weight.T)


def test_a_head_that_cannot_be_read_at_a_position_is_refused(llama):
    with pytest.raises(UserError, match="OwnProjection does not call its output head"):
        predict_labels(OwnProjection(llama.config), LabelSoftmax(), random_prompts(), label_tokens(((5,), (7,))), 1000)


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        (None, "bfloat16"),
        (QuantizationSettings(bits=4), "bfloat16, 4 bit (nf4)"),
        (QuantizationSettings(bits=4, quant_type="fp4"), "bfloat16, 4 bit (fp4)"),
        (QuantizationSettings(bits=8), "bfloat16, 8 bit"),
    ],
    ids=["whole", "nf4", "fp4", "int8"],
)
def test_the_environment_says_in_how_many_bits_the_weights_are(scratch, base_dir, quantization, precision):
    """Seconds of 4 and of 8 bits are not those of one precision; an adapter around the weights changes nothing."""
    named = ModelSettings(name_or_path=str(base_dir))
    model = load_model(named, scratch.tokenizer, 64, torch.bfloat16, quantization)
    lora = settings("adapter=lora", f"model.name_or_path={base_dir}").adapter
    assert environment(model)["precision"] == precision
    assert environment(add_adapter(model, lora))["precision"] == precision


def test_the_environment_counts_the_devices_whose_seconds_are_added_up(llama, monkeypatch):
    one = environment(llama)["device"]
    monkeypatch.setattr("nexttoken.engine.label_answerer.num_ranks", lambda: 2)
    assert environment(llama)["device"] == f"2 x {one}"


def environment(model: torch.nn.Module) -> dict:
    return LabelAnswerer(model, LabelSoftmax(), None, label_tokens(CONTINUATIONS["one token"]), 1000).environment
