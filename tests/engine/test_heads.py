"""Each head against its plain definition, and the module that learns through it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from nexttoken.engine.heads import Classification, LabelSoftmax, WholeVocabulary, divergence, label_losses
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.engine.label_scores import UNKNOWN
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.models.scratch import build_llama, llama_config
from nexttoken.prompts.label_tokens import LabelTokens, find_label_tokens
from nexttoken.settings import AdapterSettings, FitSettings, ScratchSettings
from nexttoken.training.module import AnswerModule
from nexttoken.training.neftune import noisy_embeddings
from nexttoken.training.steps import Batcher, Course, Step

FACTS = {"num_options": None, "votes": ()}

LABELS = LabelTokens(("A", "B", "tie"), ((5,), (6,), (7, 8)), (("A",), ("B",), ("t", "ie")), 0)
ONE_TOKEN = LabelTokens(("A", "B", "C"), ((5,), (6,), (7,)), (("A",), ("B",), ("C",)), 0)
SMALL = ScratchSettings(vocab_size=100, hidden_size=32, num_layers=2, num_heads=4, initializer_range=0.3)
PAD = 99


class Tokenizer:
    """As much of one as building a model asks for."""

    bos_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 100


def build(num_classes: int | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_llama(SMALL, Tokenizer(), 64, num_classes)


def rows(num_rows: int = 9) -> list[SimpleNamespace]:
    rng = np.random.default_rng(1)
    return [
        SimpleNamespace(
            id=f"r{n}",
            label=n % 3,
            token_ids=rng.integers(1, PAD, 3 + 4 * n),
            num_options=None,
            votes=(),
            round=0,
            num_targets=1,
        )
        for n in range(num_rows)
    ]


def one_batch(head, labels):
    (batch,) = Batcher(head, labels, 100_000).batches(rows())
    return batch


@torch.inference_mode()
def test_classification_is_what_transformers_calls_sequence_classification():
    from transformers import LlamaForSequenceClassification

    head, model = Classification(), build(num_classes=3).eval()
    assert isinstance(model, LlamaForSequenceClassification)
    batch = one_batch(head, LABELS)
    ids, lengths = batch.layout.token_ids, torch.tensor(batch.layout.lengths)
    padded = torch.where(torch.arange(ids.shape[1]) < lengths[:, None], ids, PAD)
    model.config.pad_token_id = PAD
    torch.testing.assert_close(head.scores(model, batch, LABELS), model(input_ids=padded).logits, atol=1e-6, rtol=1e-6)


def test_classification_reads_the_prompt_once_however_labels_are_spelt():
    assert Classification().contexts(LABELS) == ((),)
    assert Classification().num_outputs(LABELS) == 3
    assert LabelSoftmax().contexts(LABELS) == ((7,),)
    assert LabelSoftmax().num_outputs(LABELS) is None


def test_the_losses_are_their_definitions():
    model = build()
    batch = one_batch(LabelSoftmax(), ONE_TOKEN)
    logits = torch.stack([model(input_ids=torch.tensor(ids[None])).logits[0, -1] for ids in by_length()])
    ids = [ONE_TOKEN.continuations[label][0] for label in batch.labels.tolist()]
    vocabulary = -log_softmax(logits, -1)[torch.arange(len(ids)), ids].sum()
    label = cross_entropy(logits[:, [5, 6, 7]], batch.labels, reduction="sum")
    torch.testing.assert_close(WholeVocabulary().loss(model, batch, ONE_TOKEN), vocabulary, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(LabelSoftmax().loss(model, batch, ONE_TOKEN), label, atol=1e-4, rtol=1e-5)
    assert vocabulary - label > 1, "the other 97 tokens have a share of the probability"


@pytest.mark.parametrize("head", [LabelSoftmax(), WholeVocabulary()], ids=lambda head: type(head).__name__)
def test_a_label_that_begins_others_is_learnt_beside_them(head):
    """Options 0 to 11, digits one by one: learning "10" and "11" must not teach that every "1" goes on."""
    numbers = [str(number) for number in range(12)]
    labels = find_label_tokens(["?"], numbers, lambda text: list(map(ord, text)), lambda ids: list(map(chr, ids)), None)
    assert labels.continuations[10] == (*labels.continuations[1], *labels.continuations[0])
    model = build()
    asked = [  # the last token names the right option
        SimpleNamespace(
            id=str(n), label=n % 12, token_ids=np.array([60, 61 + n % 3, 70 + n % 12]), num_options=None, votes=()
        )
        for n in range(36)
    ]
    (batch,) = Batcher(head, labels, 100_000).batches(asked)
    of_right = batch.labels[:, None]
    before = head.scores(model, batch, labels).softmax(-1).gather(1, of_right)[:, 0]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        head.loss(model, batch, labels).backward()
        optimizer.step()
    after = head.scores(model, batch, labels).softmax(-1).gather(1, of_right)[:, 0]
    assert after[batch.labels == 1].min() > max(0.5, before[batch.labels == 1].max())
    assert after.min() > 0.5


def by_length() -> list[np.ndarray]:
    return [row.token_ids for row in sorted(rows(), key=lambda row: -len(row.token_ids))]


@pytest.mark.parametrize("head", [LabelSoftmax(), WholeVocabulary(), Classification()], ids=lambda h: type(h).__name__)
def test_rows_with_an_unknown_label_add_nothing_but_a_graph(head):
    """Fillers of a process that ran out of rows: their loss is zero, and so is every gradient it sends around."""
    model = build(head.num_outputs(LABELS))
    batches = Batcher(head, LABELS, 10, rank=1, num_ranks=2).batches(rows(1))
    assert [batch.labels.tolist() for batch in batches] == [[-1]]
    loss = head.loss(model, batches[0], LABELS)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert any(p.grad is not None for p in model.parameters())


def out_of_memory_above(model: torch.nn.Module, num_tokens: int) -> list[int]:
    """Make the model fail as a GPU's allocator does for more tokens than these; returns the sizes that went through."""
    sizes: list[int] = []

    def check(_: torch.nn.Module, __: tuple, inputs: dict) -> None:
        size = inputs["input_ids"].numel()
        if size > num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(size)

    model.register_forward_pre_hook(check, with_kwargs=True)
    return sizes


def test_prediction_goes_on_in_halves_once(capsys):
    head, model = LabelSoftmax(), build()
    whole = predict_labels(model, head, rows(), LABELS, 400)
    sizes = out_of_memory_above(model, 150)
    halved = predict_labels(model, head, rows(), LABELS, 400)
    assert halved.ids == whole.ids
    np.testing.assert_allclose(halved.probs, whole.probs, atol=1e-6)
    assert max(sizes) <= 150
    assert capsys.readouterr().out.count("out of memory") == 1
    out_of_memory_above(model, 20)
    with pytest.raises(torch.OutOfMemoryError):
        predict_labels(model, head, rows(), LABELS, 400)


class Bare(AnswerModule):
    """The module without a trainer around it: gradients are added up, no step is made."""

    class trainer:
        world_size = 1

    def optimizers(self, use_pl_optimizer: bool = True):
        return torch.optim.SGD(self.parameters(), 0.0)

    def manual_backward(self, loss, *args, **kwargs):
        loss.backward()

    current_epoch = global_step = 0


def bare(**fit) -> Bare:
    return Bare(build(), LabelSoftmax(), LABELS, FitSettings(**fit), Course(num_steps=1, seed=0))


def test_a_step_is_repeated_in_halves_and_learns_the_same(capsys):
    """The gradients of the failed attempt are gone: the repeated step's are those of a step that had the memory."""
    step = Step(Batcher(LabelSoftmax(), LABELS, 400).batches(rows()), 9, 9)
    enough, short = bare(), bare()
    loss = enough._accumulate(step)
    sizes = out_of_memory_above(short.model, 250)
    assert short._accumulate(step) is None
    assert short.halves_batches
    again = short._accumulate(step)
    torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-6)
    assert max(sizes) <= 250
    for ours, theirs in zip(short.parameters(), enough.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)
    out_of_memory_above(short.model, 20)
    with pytest.raises(torch.OutOfMemoryError):
        short._accumulate(step)


@pytest.mark.parametrize(("num_processes", "halves"), [(1, True), (2, False)])
def test_halves_go_on_in_one_process_only(monkeypatch, num_processes, halves):
    """A run may be resumed on more devices, whose numbers of batches have to stay the same."""
    monkeypatch.setattr("nexttoken.training.module.num_ranks", lambda: num_processes)
    module = bare()
    module.on_load_checkpoint({"halves_batches": True})
    assert module.halves_batches == halves


def test_only_memory_is_answered_by_halves():
    module = bare()
    module.model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        module._accumulate(Step(Batcher(LabelSoftmax(), LABELS, 400).batches(rows()), 9, 9))


def test_state_is_what_is_trained_and_must_fit():
    module = bare()
    module.model.model.embed_tokens.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert not any("embed_tokens" in name for name in state)
    assert len(state) == sum(p.requires_grad for p in module.parameters())
    first = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != first},
        state | {"model.other": torch.zeros(1)},
        state | {first: torch.zeros(1)},
    ):
        with pytest.raises(UserError, match="the checkpoint does not fit this model"):
            module.load_state_dict(wrong)
    module.load_state_dict({name: value + 1 for name, value in state.items()})
    assert all(torch.equal(value, state[name] + 1) for name, value in module.state_dict().items())


def test_noise_has_the_size_of_the_paper_and_ignores_padding():
    """Uniform in alpha / sqrt(length x width), for each row's own length; off outside and for alpha 0."""
    model = build()
    batch = one_batch(Classification(), LABELS)
    token_ids = batch.layout.token_ids
    plain = model.get_input_embeddings()(token_ids)
    with noisy_embeddings(model, batch.layout, alpha=5.0):
        noise = model.get_input_embeddings()(token_ids) - plain
    for row, length in zip(noise, batch.layout.lengths, strict=True):
        limit = 5 / (length * 32) ** 0.5
        assert row[:length].abs().max() <= limit + 1e-6
        assert row[:length].abs().max() > 0.9 * limit
        assert abs(row[:length].mean().item()) < 0.2 * limit
    with noisy_embeddings(model, batch.layout, alpha=0.0):
        assert torch.equal(model.get_input_embeddings()(token_ids), plain)
    assert torch.equal(model.get_input_embeddings()(token_ids), plain)


def test_the_described_architecture_is_the_one_built():
    built, described = build().config, llama_config(SMALL, 100, 64)
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "max_position_embeddings"):
        assert getattr(built, key) == getattr(described, key)


def test_a_classification_layer_is_trained_in_32_bit_on_a_base_of_16():
    adapter = AdapterSettings(
        r=2, alpha=4, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default"
    )
    torch.manual_seed(0)
    model = add_adapter(build(num_classes=3).bfloat16(), adapter, 3)
    batch = one_batch(Classification(), LABELS)
    scores = Classification().scores(model, batch, LABELS)
    layer = model.get_base_model().score.modules_to_save["default"]
    assert layer.weight.dtype == scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float()), "computed in 32 bit, not rounded to 16"
    scores.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_are_shared_out_among_the_possible_ones(smoothing):
    scores = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, float("-inf")], [3.0, 1.0, 0.0]], requires_grad=True)
    labels = torch.tensor([2, 0, UNKNOWN])
    loss = label_losses(scores.log_softmax(1), labels, smoothing)
    loss.backward()
    whole = torch.nn.functional.cross_entropy(scores[:1], labels[:1], label_smoothing=smoothing)
    two = torch.nn.functional.cross_entropy(scores[1:2, :2], labels[1:2], label_smoothing=smoothing)
    assert loss.item() == pytest.approx((whole + two).item(), abs=1e-6)
    assert scores.grad.isfinite().all()


def test_a_label_smoothing_of_one_or_more_is_refused():
    with pytest.raises(UserError, match=r"head.label_smoothing=1 is not accepted"):
        LabelSoftmax(1)


def test_votes_are_learnt_as_a_distribution():
    log_probs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    labels = torch.tensor([0, 1, UNKNOWN, 2])
    votes = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.4, 0.6]])
    expected = -(votes * log_probs)[[0, 1, 3]].sum()
    torch.testing.assert_close(label_losses(log_probs, labels, votes=votes), expected)
    certain = one_hot(labels.clamp(min=0), 3).float()
    for smoothing in (0.0, 0.1):
        plain = label_losses(log_probs, labels, smoothing)
        torch.testing.assert_close(label_losses(log_probs, labels, smoothing, certain), plain)
    absent = log_probs.masked_fill(torch.tensor([[False, False, False]] * 3 + [[True, False, False]]), -torch.inf)
    assert label_losses(absent, labels, votes=votes).isfinite()


def test_two_passes_with_other_dropout_are_drawn_together():
    one, other = (torch.randn(3, 3, generator=torch.Generator().manual_seed(n)).log_softmax(1) for n in (0, 1))
    labels = torch.tensor([0, UNKNOWN, 2])
    expected = sum(
        float((p[row].exp() * (p[row] - q[row])).sum()) for row in (0, 2) for p, q in ((one, other), (other, one))
    )
    torch.testing.assert_close(divergence(one, other, labels), torch.tensor(expected))
    assert divergence(one, one, labels) == 0
    absent = [probs.masked_fill(torch.tensor([False, True, False]), -torch.inf) for probs in (one, other)]
    assert divergence(*absent, labels).isfinite()
    with pytest.raises(UserError, match=r"head\.r_drop=-1 is not accepted"):
        LabelSoftmax(r_drop=-1)
