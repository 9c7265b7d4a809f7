"""Batches that go through the model side by side: the numbers, the order and the noise of one after the other."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from nexttoken.engine.forward.parallel_batches import ParallelStreams, copy_sharing_weights, num_streams
from nexttoken.engine.forward.shortcuts import skipping
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.engine.run_batches import run_batches
from nexttoken.models.adapters import add_adapter
from nexttoken.models.fast_lora import FastDropout
from nexttoken.models.scratch import build_llama
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import AdapterSettings, FitSettings, ScratchSettings
from nexttoken.training.parallel_gradients import Learners, num_learners, trained
from nexttoken.training.steps import Batcher

LABELS = LabelTokens(("A", "B", "C"), ((5,), (6,), (7,)), (("A",), ("B",), ("C",)), 0)
SIZES = ScratchSettings(vocab_size=100, hidden_size=64, num_layers=3, num_heads=4, initializer_range=0.2)
LORA = {"r": 1, "alpha": 2, "target_modules": "all-linear", "rslora": False, "dora": False, "init": "gaussian"}
TOKENIZER = type("Tokenizer", (), {"bos_token_id": 0, "eos_token_id": 0, "__len__": lambda _: 100})()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("two_threads")


def build() -> nn.Module:
    torch.manual_seed(0)
    return build_llama(SIZES, TOKENIZER, 128, None).eval()


def adapted(dropout: float = 0.2) -> nn.Module:
    model = add_adapter(build(), AdapterSettings(**LORA, dropout=dropout))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model


def rows(number: int = 23) -> list[EncodedPrompt]:
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 90, number).tolist()
    return [EncodedPrompt(f"r{n}", n % 3, "", rng.integers(1, 99, size), False) for n, size in enumerate(lengths)]


def test_probabilities_are_those_of_one_batch_after_the_other():
    model, asked = build(), rows()
    aside = predict_labels(model, LabelSoftmax(), asked, LABELS, 128)
    again = predict_labels(model, LabelSoftmax(), asked, LABELS, 128)
    torch.set_num_threads(1)
    alone = predict_labels(model, LabelSoftmax(), asked, LABELS, 128)
    assert aside.ids == alone.ids == tuple(row.id for row in asked)
    assert (aside.probs == again.probs).all(), "to the last bit, whichever ends first"
    np.testing.assert_allclose(aside.probs, alone.probs, atol=1e-6)
    assert (aside.columns["seconds"] > 0).all()


def test_results_come_in_order_with_all_models_at_work():
    streams, together = ParallelStreams(build()), threading.Barrier(2, timeout=20)

    def work(model: nn.Module, number: int) -> tuple[int, int, nn.Module]:
        if number < 4:
            together.wait()  # nobody passes alone
        return number, torch.get_num_threads(), model

    found = list(streams.map(work, list(range(5))))
    assert [number for number, *_ in found] == list(range(5))
    assert [threads for _, threads, _ in found] == [1, 1, 1, 1, 2], "what is left over has all threads"
    assert {id(model) for *_, model in found} == {id(model) for model in streams.models}
    assert torch.get_num_threads() == 2


def test_an_error_comes_in_its_place_and_ends_the_rest():
    begun, found = [], []

    def work(_: nn.Module, number: int) -> int:
        begun.append(number)
        if number == 3:
            raise MemoryError
        return number

    with pytest.raises(MemoryError):
        found.extend(ParallelStreams(build()).map(work, list(range(100))))
    assert found == [0, 1, 2]
    assert len(begun) < 12
    assert torch.get_num_threads() == 2


def test_the_largest_are_not_under_way_together():
    """One stream takes them from the front while the other takes the small ones from the back."""
    under_way: list[int] = []
    seen: list[int] = []

    def work(_: nn.Module, size: int) -> int:
        under_way.append(size)
        time.sleep(size / 1000)
        seen.append(sum(under_way))
        under_way.remove(size)
        return size

    sizes = [60, 50, 40, 30, 20, 10, 10, 10, 10, 10]
    assert list(ParallelStreams(build()).map(work, sizes, from_both_ends=True)) == sizes
    assert max(seen) <= 60 + 30 < 60 + 50


def test_an_error_at_the_far_end_ends_the_rest_as_well():
    def work(_: nn.Module, number: int) -> int:
        time.sleep(0.01)
        if number == 19:
            raise MemoryError
        return number

    found: list[int] = []
    with pytest.raises(MemoryError):
        found.extend(ParallelStreams(build()).map(work, list(range(20)), from_both_ends=True))
    assert found == list(range(len(found)))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_gradient_mode_holds_in_each_thread(mode):
    def work(model: nn.Module, _: int) -> tuple[bool, bool]:
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits
        return logits.requires_grad, logits.is_inference()

    with mode():
        expected = work(build(), 0)
        assert set(ParallelStreams(build()).map(work, [0, 1])) == {expected}


def test_a_twin_has_the_weights_and_nothing_else_in_common():
    model = adapted()
    other = copy_sharing_weights(model)
    assert all(one is another for one, another in zip(model.parameters(), other.parameters(), strict=True))
    assert {id(m) for m in model.modules()}.isdisjoint(id(m) for m in other.modules())
    assert other.config is not model.config


def test_models_elsewhere_or_with_state_in_their_layers_have_one_stream():
    assert num_streams(build(), 4) == 2
    assert num_streams(build(), 1) == 1
    assert num_streams(build().to("meta"), 4) == 1
    stateful = build()
    stateful.add_module("eight", type("Linear8bitLt", (nn.Module,), {})())
    assert num_streams(stateful, 4) == 1
    torch.set_num_threads(1)
    assert num_streams(build(), 4) == 1


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 3), (7, 3), (16, 4)])
def test_few_threads_are_left_idle(threads, expected):
    torch.set_num_threads(threads)
    assert num_streams(build(), 4) == expected


def test_a_model_that_cannot_be_copied_takes_one_batch_after_the_other():
    model, other = adapted(), build()
    model.lock, other.product = threading.Lock(), other.lm_head.weight * 2
    assert num_learners(model, FitSettings(), "32-true") == 1
    for one in (model, other):
        assert ParallelStreams(one).models == [one]
        assert len(predict_labels(one, LabelSoftmax(), rows(), LABELS, 128).probs) == 23


def test_seconds_add_up_to_the_time_that_passed():
    """Of three batches two go side by side; the third one has all threads."""

    def ask(_: nn.Module, members: list) -> np.ndarray:
        time.sleep(0.1)
        return np.zeros((len(members), 1))

    start = time.perf_counter()
    _, seconds = run_batches(build(), rows(3), [1, 1, 1], [[0], [1], [2]], ask, "test")
    assert seconds.sum() <= time.perf_counter() - start
    assert (seconds >= [0.05, 0.05, 0.1]).all()


def learn(model: nn.Module, batch) -> torch.Tensor:
    with skipping(model, batch.reads), batch.layout.attending(model):
        loss = LabelSoftmax().loss(model, batch, LABELS)
        loss.backward()
    return loss.detach()


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trained(model)])


def test_gradients_add_up_to_those_of_one_batch_after_the_other():
    """Also after a step: what the optimizer changes is what each copy computes with."""
    model = adapted(dropout=0.0)
    batches = Batcher(LabelSoftmax(), LABELS, 128, packs=True, at_once=2).batches(rows())
    learners = Learners(model, 2)
    optimizer = torch.optim.SGD(trained(model), 1e-3)  # a longer step, and rounding alone moves the next gradient
    for _ in range(2):
        optimizer.zero_grad()
        losses = [float(loss) for loss in learners.add_up(learn, batches, 0)]
        aside = gradient(model)
        optimizer.zero_grad()
        assert losses == pytest.approx([float(learn(model, batch)) for batch in batches], rel=1e-5)
        assert (aside - gradient(model)).norm() <= 1e-5 * gradient(model).norm()
        optimizer.step()


def test_a_step_that_failed_halfway_leaves_no_gradients():
    """It starts again where memory was too short, and what its batches had found so far must not be added once more."""
    model = adapted(dropout=0.0)
    batches = Batcher(LabelSoftmax(), LABELS, 128, packs=True, at_once=2).batches(rows())
    learners = Learners(model, 2)
    list(learners.add_up(learn, batches, 0))
    expected = gradient(model)

    def learn_and_fail(model: nn.Module, batch) -> torch.Tensor:
        learn(model, batch)
        raise MemoryError

    with pytest.raises(MemoryError):
        list(learners.add_up(learn_and_fail, batches, 0))
    model.zero_grad()
    list(learners.add_up(learn, batches, 0))
    assert gradient(model).equal(expected)


def test_no_two_batches_of_steps_in_a_row_have_the_same_noise():
    def draw(model: nn.Module, _: int) -> torch.Tensor:
        dropout = next(module for module in model.modules() if isinstance(module, FastDropout))
        return dropout.draw(torch.ones(64))[0]

    learners = Learners(adapted(dropout=0.5), 2)
    masks = [mask for seed in (7, 8, 9) for mask in learners.add_up(draw, range(4), seed)]
    assert len({tuple(mask.tolist()) for mask in masks}) == 12


def test_the_noise_of_a_step_is_its_seeds():
    """To the last bit: which copy a batch goes through is chance, what it draws is not."""
    model = adapted(dropout=0.5)
    batches = Batcher(LabelSoftmax(), LABELS, 64, packs=True, at_once=2).batches(rows())
    learners, found = Learners(model, 2), []
    for seed in (1, 1, 1, 2):
        model.zero_grad()
        list(learners.add_up(learn, batches, seed))
        found.append(gradient(model))
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])
    assert not found[0].equal(found[3])


def test_the_model_itself_draws_and_learns_as_before():
    model = adapted()
    Learners(model, 2)
    assert all(m.generator is None for m in model.modules() if isinstance(m, FastDropout))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, 2), ({"gradient_checkpointing": True}, 1), ({"neftune_alpha": 5.0}, 1)],
)
def test_noise_with_one_source_is_learnt_one_after_the_other(changed, expected):
    assert num_learners(adapted(), FitSettings(**changed), "32-true") == expected


def test_other_noise_precision_or_much_to_learn_go_one_after_the_other():
    model = adapted()
    assert num_learners(model, FitSettings(), "bf16-mixed") == 1
    model.config.attention_dropout = 0.1
    assert num_learners(model, FitSettings(), "32-true") == 1
    assert num_learners(build(), FitSettings(), "32-true") == 1
    other = adapted()
    other.add_module("noise", nn.Dropout(0.1))
    assert num_learners(other, FitSettings(), "32-true") == 1
