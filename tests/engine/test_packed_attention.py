"""Attention by segment is the attention of each row alone, whatever stands before it and whoever of it is read."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nexttoken.engine.forward import packed_attention as by_segment
from nexttoken.engine.forward.blocks import BLOCK, Part, attend_in_blocks
from nexttoken.engine.forward.last_layer import attention, last_layer, only_at
from nexttoken.engine.forward.layout import Pieces
from nexttoken.engine.forward.packed_attention import KeyValues, Segments
from nexttoken.engine.forward.shortcuts import Shortcuts, compute_prefix, shortcuts, skipping
from support import small_models
from support.varlen_kernel import KERNEL, documented

SMALL = small_models.SMALL | {"max_position_embeddings": 1024}
SHARED, TRUNK = 30, 20  # tokens of the prefix, and of what two rows share behind it
OWN = (700, 3, 513, 256, 40)  # tokens; the first two go on from the trunk
READS = ((0, 300, 699), (2,), tuple(range(100, 513)), (255,), ())  # of each row's own tokens; and the trunk's last one
MODELS = {
    "full": ("Llama", {}),
    "small window": ("Mistral", {"sliding_window": 16}),
    "large window": ("Mistral", {"sliding_window": 300}),
    "cap": ("Gemma2", {"sliding_window": 300, "attn_logit_softcapping": 2.0}),
    "one matrix for queries and keys": ("GPTNeoX", {}),
}


@pytest.fixture(params=MODELS)
def model(request) -> torch.nn.Module:
    name, options = MODELS[request.param]
    return build(name, **options)


@pytest.fixture(params=["row by row", "at once"])
def way(request, monkeypatch) -> None:
    """Attention of each row by itself, or of all in one call as on a GPU; its kernel's documentation stands for it."""
    if request.param == "at once":
        monkeypatch.setattr(KERNEL, documented)
        monkeypatch.setattr(
            by_segment, "goes_at_once", lambda q, k, v, dropout, cap, window: cap is None and not dropout
        )


def build(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | options)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def dense(query, key, value, places, window, scaling, softcap):
    """The same from all scores, each head with its own keys."""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    at, seen = torch.tensor(places)[:, None], torch.arange(key.shape[2])
    visible = (seen <= at) & (seen > at - (window or key.shape[2]))
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value


@settings(max_examples=60, deadline=None)
@given(
    num_keys=st.integers(1, 3 * BLOCK),
    share=st.floats(0, 1),
    is_run=st.booleans(),
    window=st.none() | st.integers(1, 2 * BLOCK),
    softcap=st.none() | st.just(1.5),
    seed=st.integers(0, 9),
)
def test_blocks_give_the_outputs_and_gradients_of_all_scores(num_keys, share, is_run, window, softcap, seed):
    draw, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    num_queries = max(1, round(share * num_keys))
    chosen = np.arange(num_keys - num_queries, num_keys) if is_run else draw.choice(num_keys, num_queries, False)
    places = sorted(chosen.tolist())
    shapes = ((4, num_queries), (2, num_keys), (2, num_keys))
    parts = [torch.randn(1, heads, size, 8, generator=generator, requires_grad=True) for heads, size in shapes]
    outputs = (
        attend_in_blocks(Part(*parts, places), window, {}, 0.5, 0.0, softcap),
        dense(*parts, places, window, 0.5, softcap),
    )
    weights = torch.randn(outputs[0].shape, generator=generator)
    found, expected = ((output, *torch.autograd.grad((output * weights).sum(), parts)) for output in outputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_blocks_compute_few_pairs_that_nobody_sees():
    """Three layers' worth of masks are one: they are found by their geometry, and are as narrow as the window."""
    masks, key = {}, torch.randn(1, 2, 1200, 8)
    for _ in range(3):
        attend_in_blocks(Part(torch.randn(1, 4, 1024, 8), key, key, range(176, 1200)), 16, masks, None, 0.0, None)
    assert [tuple(mask.shape) for mask in masks.values()] == [(256, 256 + 15)]


def drawn_rows() -> tuple[list[int], list[int], list[list[int]]]:
    draw = np.random.default_rng(0)
    shared, trunk, *own = (draw.integers(1, 97, size).tolist() for size in (SHARED, TRUNK, *OWN))
    return shared, trunk, own


def packed_rows(prefix=None):
    """The layout, and where in it those places stand that are read: the trunk's last one, then row by row."""
    shared, trunk, own = drawn_rows()
    pieces = Pieces()
    first = pieces.add(trunk if prefix else shared + trunk, prefix=prefix)
    start = [] if prefix else shared
    numbers = [pieces.add(row, first) if n < 2 else pieces.add(start + row, prefix=prefix) for n, row in enumerate(own)]
    layout = pieces.packed()
    offsets = [0 if n < 2 else len(start) for n in range(len(own))]
    reads = [layout.place(first, -1)]
    for number, offset, places in zip(numbers, offsets, READS, strict=True):
        reads += [layout.place(number, offset + place) for place in places]
    return layout, torch.tensor(reads)


def states_alone(model) -> torch.Tensor:
    """The same places from the architecture's own forward of each row alone."""
    shared, trunk, own = drawn_rows()
    found = []
    for number, (row, places) in enumerate(zip(own, READS, strict=True)):
        before = shared + trunk if number < 2 else shared
        states = model.base_model(input_ids=torch.tensor([before + row]), use_cache=False).last_hidden_state[0]
        found += [states[[len(before) - 1]] if number == 0 else states[:0], states[[len(before) + at for at in places]]]
    return torch.cat(found)


def states_packed(model, layout, reads) -> torch.Tensor:
    with skipping(model, reads), layout.attending(model):
        return model.base_model(**layout.inputs).last_hidden_state.flatten(0, 1)[reads]


@torch.no_grad()
@pytest.mark.parametrize("is_read_before", [True, False], ids=["prefix", "whole"])
def test_long_rows_are_what_they_are_alone(model, way, is_read_before):
    assert shortcuts(model) == Shortcuts(packs=True, skips=True)
    prefix = compute_prefix(model, drawn_rows()[0]) if is_read_before else None
    found, expected = states_packed(model, *packed_rows(prefix)), states_alone(model)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "computed again"])
def test_gradients_of_long_rows_are_those_of_each_alone(model, way, recomputes):
    if recomputes:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    layout, reads = packed_rows()
    weights = torch.randn(len(reads), SMALL["hidden_size"])
    with skipping(model, reads), layout.attending(model):
        (states_packed(model, layout, reads) * weights).sum().backward()
    found = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    model.zero_grad()
    (states_alone(model) * weights).sum().backward()
    expected = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-5 * largest, rtol=1e-3, msg=name)


@torch.no_grad()
def test_attention_of_the_last_layer_is_asked_by_what_is_read(monkeypatch):
    """A row of which nothing is read asks nothing; one without a mask that is read at most of its places asks whole."""
    model, asked = build("Llama"), []
    shortcuts(model)

    def counted(part, *others, **options):
        asked.append(part.query.shape[2])
        return attend_in_blocks(part, *others, **options)

    monkeypatch.setattr(by_segment, "attend_in_blocks", counted)
    states_packed(model, *packed_rows())
    whole = [SHARED + TRUNK, 700, 3, *(SHARED + size for size in OWN[2:])]
    assert asked == [*whole, 1, 3, 1, SHARED + 513, 1]


@torch.no_grad()
def test_the_last_layers_attention_is_zero_where_nobody_reads():
    """The trunk is read at one place, and a row that goes on from it at another; the layers before are whole."""
    model, results, (layout, _) = build("Llama"), [], packed_rows()
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: results.append(inputs[0][0]))
    with only_at(model, torch.tensor([60, 3])), layout.attending(model):
        model.model(**layout.inputs)
    first, last = (result.abs().sum(dim=1).nonzero().flatten().tolist() for result in results)
    assert (len(first), last) == (layout.token_ids.numel(), [3, 60])
    assert attention(last_layer(model)) == [model.model.layers[-1].self_attn]
    assert layout.segments.queries is None, "the batch is as it was"


@torch.no_grad()
def test_copies_over_the_same_weights_read_one_prefix_at_once():
    model = build("Mistral", sliding_window=300)
    memo = {id(part): part for part in (*model.parameters(), *model.buffers())}
    models = [model, *(copy.deepcopy(model, dict(memo)) for _ in range(3))]
    prefix = compute_prefix(model, drawn_rows()[0])
    assert set(prefix.layers) == {0, 1}
    expected = states_packed(model, *packed_rows(prefix))

    def read(number: int) -> list[torch.Tensor]:
        """Each time other places, which is what a mistaken neighbour would show."""
        layout, reads = packed_rows(prefix)
        with torch.no_grad():  # which is a thread's own
            return [states_packed(models[number], layout, reads[number + 4 * turn :: 12]) for turn in range(3)]

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(read, range(4))):
            for turn in range(3):
                torch.testing.assert_close(found[turn], expected[number + 4 * turn :: 12], atol=2e-5, rtol=1e-4)


class Nameless(transformers.LlamaForCausalLM):
    """A model whose attention does not know its layer."""

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.layer_idx = None


def test_attention_that_does_not_know_its_layer_is_padded():
    model = Nameless(transformers.LlamaConfig(**SMALL))
    assert shortcuts(model) == Shortcuts(packs=False, skips=True)


class Twisted(transformers.LlamaForCausalLM):
    """A model whose last layer looks at what attention says of the place before."""

    def __init__(self, config):
        super().__init__(config)
        projection = self.model.layers[-1].self_attn.o_proj
        projection.register_forward_pre_hook(lambda _, inputs: (inputs[0] + inputs[0].roll(1, dims=1),))


def test_a_last_layer_that_needs_other_places_is_computed_whole():
    torch.manual_seed(0)
    assert not shortcuts(Twisted(transformers.LlamaConfig(**SMALL))).skips


def test_tokens_that_ask_are_those_read_or_all_of_a_segment_that_needs_no_mask():
    segments, reads = Segments((4, 4, 4), (-1, 0, -1), (None, None, None)), [9, 0, 1, 2, 4, 5, 7]
    assert segments.only_at(reads).queries == (range(4), [0, 1, 3], [1])
    behind = Segments((4, 4, 4), (-1, 0, -1), (KeyValues(5), None, KeyValues(3)))
    assert behind.only_at(reads).queries == ([0, 1, 2], [0, 1, 3], [1])
    assert segments.only_at([]) is segments


@torch.no_grad()
def test_keys_of_a_long_beginning_are_not_copied_for_all_rows_at_once(monkeypatch):
    """Ten rows of two tokens behind 100 would hold 1,020 keys for 20; behind one of two tokens, 40."""
    calls, attention, kept = [], build("Llama").model.layers[0].self_attn, (torch.randn(1, 2, 100, 8),) * 2
    monkeypatch.setattr(by_segment, "goes_at_once", lambda *_: True)
    monkeypatch.setattr(by_segment, "attend_at_once", lambda parts, *_: calls.append(parts) or parts[0].query)
    tokens = torch.randn(1, 4, 20, 8), torch.randn(1, 2, 20, 8), torch.randn(1, 2, 20, 8)
    for length, expected in ((100, 0), (2, 1)):
        before = KeyValues(length, {0: tuple(tensor[:, :, :length] for tensor in kept)})
        segments = Segments((2,) * 10, (-1,) * 10, (before,) * 10)
        assert sum(segments.ends) == 10 * (length + 2)
        by_segment.attend(attention, *tokens, None, segments=segments)
        assert len(calls) == expected


class GroupedCalls(TorchFunctionMode):
    """Records for each call of torch's attention whether heads shared keys in it."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped: list[bool] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.grouped.append(args[0].shape[1] > args[1].shape[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_queries", [1, 7, 40])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("takes_groups", [True, False])
def test_keys_are_repeated_only_where_no_fused_kernel_takes_shared_ones(num_queries, window, takes_groups):
    """Switching the processor's fused kernel off makes it a GPU whose kernels take no shared keys under this mask."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, tokens, 8) for heads, tokens in ((6, num_queries), (2, 40), (2, 40)))
    leaves = [each.requires_grad_() for each in (query, key, value)]
    part = Part(*leaves, range(40 - num_queries, 40))
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH] if takes_groups else [SDPBackend.MATH]
    with sdpa_kernel(kernels), GroupedCalls() as calls:
        output = attend_in_blocks(part, window, {}, 0.5, 0.0, None)
    assert calls.grouped == [takes_groups]
    expected = dense(query, key, value, part.places, window, 0.5, None)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    grads, wanted = (torch.autograd.grad(each.square().sum(), leaves) for each in (output, expected))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("amp", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_short_rows_of_16_bits_are_trained_by_plain_products(softcap, window, amp):
    """Output and gradients of bfloat16 numbers are those of the same numbers in float32, but for their rounding."""
    torch.manual_seed(0)
    narrow = [torch.randn(1, heads, 100, 8, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2)]
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    outputs, calls = [], []
    for tensors in (narrow, wide):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp and tensors is narrow), GroupedCalls() as fused:
            output = attend_in_blocks(Part(*tensors, range(100)), window, {}, None, 0.0, softcap)
        calls.append(len(fused.grouped))
        outputs.append([output, *torch.autograd.grad(output.float().square().sum(), tensors)])
    assert calls == [0, 0 if softcap else 1]
    assert [tensor.dtype for tensor in outputs[0]] == [torch.bfloat16] * 4
    for ours, expected in zip(*outputs, strict=True):
        assert (ours.float() - expected).norm() <= 0.01 * expected.norm()
