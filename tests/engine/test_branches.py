"""Short branches that go in one attention call have the outputs and gradients of calls of their own."""

from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.engine.forward.blocks import MAX_TOKENS, branch_groups
from nexttoken.engine.forward.packed_attention import ROOT, KeyValues, Segments, attend


class Layer(torch.nn.Module):
    layer_idx: ClassVar[int] = 0


@pytest.mark.parametrize(
    ("lengths", "beginnings", "expected"),
    [
        ((), (), []),
        ((5, 5), (None, None), [(0, 1), (1, 2)]),
        ((40, 10, 10, 10), (None, 0, 0, 0), [(0, 1), (1, 4)]),
        ((40, 10, 10, 10), (None, 0, 1, 1), [(0, 1), (1, 2), (2, 4)]),
        ((MAX_TOKENS, 1), (0, 0), [(0, 1), (1, 2)]),
        ((MAX_TOKENS - 1, 1, 1), (0, 0, 0), [(0, 2), (2, 3)]),
    ],
)
def test_groups_have_one_beginning_and_few_tokens(lengths, beginnings, expected):
    assert list(branch_groups(lengths, beginnings)) == [range(*pair) for pair in expected]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_branches_in_one_call_equal_calls_of_their_own(data):
    window, softcap = data.draw(st.none() | st.integers(1, 30)), data.draw(st.none() | st.just(1.5))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    lengths, parents, prefixes = drawn_tree(data)
    segments = Segments(lengths, parents, prefixes)
    if reads := data.draw(st.sets(st.integers(0, sum(lengths) - 1))):
        segments = segments.only_at(sorted(reads))
    shapes = ((4, sum(lengths)), (2, sum(lengths)), (2, sum(lengths)))
    tensors = [torch.randn(1, heads, size, 8, requires_grad=True) for heads, size in shapes]
    together = outcome(tensors, segments, window, softcap)
    segments.__dict__["groups"] = segments.singles
    for ours, alone in zip(together, outcome(tensors, segments, window, softcap), strict=True):
        torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)


def drawn_tree(data) -> tuple[tuple[int, ...], tuple[int, ...], tuple[KeyValues | None, ...]]:
    """Rows with short branches behind them, and rows behind a KV cache that they share."""
    lengths, parents, prefixes = [], [], []
    cache = KeyValues(7, {0: (torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 8))})
    for _ in range(data.draw(st.integers(1, 3))):
        root = len(lengths)
        has_cache = data.draw(st.booleans())
        lengths.append(data.draw(st.integers(1, 40)))
        parents.append(ROOT)
        prefixes.append(cache if has_cache else None)
        for length in data.draw(st.lists(st.integers(1, 12), max_size=14)):
            lengths.append(length)
            parents.append(data.draw(st.sampled_from([root, root, root, len(lengths) - 2])))
            prefixes.append(None)
    return tuple(lengths), tuple(parents), tuple(prefixes)


def outcome(tensors, segments, window, softcap) -> list[torch.Tensor]:
    output, _ = attend(Layer(), *tensors, None, segments, sliding_window=window, softcap=softcap)
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    gradients = torch.autograd.grad((output * weights).sum(), tensors, allow_unused=True)
    return [output, *(torch.zeros(()) if each is None else each for each in gradients)]


def test_many_branches_go_in_few_calls(monkeypatch):
    from nexttoken.engine.forward import packed_attention

    calls, each = [], packed_attention.attend_in_blocks
    monkeypatch.setattr(
        packed_attention,
        "attend_in_blocks",
        lambda part, *args, **named: calls.append(part) or each(part, *args, **named),
    )
    query, key = torch.randn(1, 4, 240, 8), torch.randn(1, 2, 240, 8)
    attend(Layer(), query, key, key, None, Segments((40, *(4,) * 50), (ROOT, *(0,) * 50), (None,) * 51))
    assert len(calls) == 1 + -(-200 // MAX_TOKENS)
