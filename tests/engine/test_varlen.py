"""All segments in one call of a GPU's kernel: what it is handed, checked against its documentation without a GPU.

The kernel itself runs on GPUs only (test_a_gpus_kernel_attends_as_row_by_row). Elsewhere varlen_kernel stands for it.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from nexttoken.engine.forward.blocks import Part, attend_in_blocks
from nexttoken.engine.forward.varlen import attend_at_once, goes_at_once, takes, works
from support.varlen_kernel import KERNEL, documented

CPU = torch.device("cpu")
SHAPE = (4, 2, 16)  # heads, groups of them with the same keys, size


def misaligned(query, key, *others, **options):
    """The output of a kernel whose window is one token too long."""
    left, right = options.pop("window_size")
    return documented(query, key, *others, window_size=(left + (left >= 0), right), **options)


@pytest.fixture
def kernel(monkeypatch):
    """Puts a function in the place of the kernel; what was tried before counts no more."""

    def put(function) -> None:
        works.cache_clear()
        monkeypatch.setattr(KERNEL, function)

    yield put
    works.cache_clear()


rows = st.tuples(st.integers(1, 30), st.integers(0, 30), st.integers(1, 30), st.booleans())


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(rows, min_size=1, max_size=5), window=st.none() | st.integers(1, 40), seed=st.integers(0, 9))
def test_parts_at_once_are_what_they_are_one_by_one(drawn, window, seed):
    """Runs of queries, scattered ones, with and without keys before them: outputs and gradients."""
    draw, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parts = []
    for own, before, asking, is_run in drawn:
        chosen = np.sort(draw.choice(own, min(own, asking), replace=False)) + before
        places = range(before, before + own) if is_run else chosen.tolist()
        shapes = ((4, len(places)), (2, before + own), (2, before + own))
        tensors = (torch.randn(1, n, size, 8, generator=generator, requires_grad=True) for n, size in shapes)
        parts.append(Part(*tensors, places))
    leaves = [tensor for part in parts for tensor in part[:3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KERNEL, documented)
        found = attend_at_once(parts, window, 0.5, {})
    expected = torch.cat([attend_in_blocks(part, window, {}, 0.5, 0.0, None) for part in parts], dim=2)
    weights = torch.randn(expected.shape, generator=generator)
    gradients = (torch.autograd.grad((output * weights).sum(), leaves) for output in (found, expected))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_layers_use_the_ends_of_rows_that_the_first_one_made(kernel):
    kernel(documented)
    ends, part = {}, Part(torch.ones(1, 2, 3, 8), torch.ones(1, 2, 5, 8), torch.ones(1, 2, 5, 8), range(2, 5))
    first = attend_at_once([part, part], None, None, ends)
    made = dict(ends)
    assert sorted(tensor.tolist() for tensor in made.values()) == [[0, 3, 6], [0, 5, 10]]
    assert torch.equal(first, attend_at_once([part, part], None, None, ends))
    assert ends.keys() == made.keys()
    assert all(ends[geometry] is tensor for geometry, tensor in made.items())


@pytest.mark.parametrize("has_window", [False, True], ids=["whole", "window"])
def test_a_kernel_is_used_that_gives_what_row_by_row_gives(kernel, has_window):
    kernel(documented)
    state = torch.get_rng_state()
    assert works(CPU, torch.bfloat16, *SHAPE, has_window)
    assert torch.equal(state, torch.get_rng_state()), "the run's random numbers are where they were"


@torch.inference_mode()
def test_a_kernel_is_tried_with_gradients_while_nobody_else_has_any(kernel):
    kernel(documented)
    assert works(CPU, torch.bfloat16, *SHAPE, False)


def test_a_kernel_that_gives_something_else_is_not_used(kernel):
    kernel(misaligned)
    assert not works(CPU, torch.bfloat16, *SHAPE, True)
    kernel(lambda *tensors, **options: documented(*tensors, **options) * torch.nan)
    assert not works(CPU, torch.bfloat16, *SHAPE, False)


def test_a_machine_without_the_kernel_goes_row_by_row():
    works.cache_clear()
    assert not works(CPU, torch.bfloat16, *SHAPE, False), "torch has it for GPUs alone"


def test_a_kernel_may_be_tried_in_a_layer_that_is_computed_again(kernel):
    kernel(documented)
    found, x = [], torch.ones(3, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        found.append(works(CPU, torch.bfloat16, *SHAPE, False))
        return x.sin()

    works.cache_clear()
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert found == [True, True]
    torch.testing.assert_close(x.grad, torch.ones(3).cos())


def test_memory_that_is_too_short_for_the_try_is_not_the_kernels_fault(kernel):
    def short(*tensors, **options):
        raise torch.OutOfMemoryError("too short")

    kernel(short)
    with pytest.raises(torch.OutOfMemoryError):
        works(CPU, torch.bfloat16, *SHAPE, False)
    kernel(documented)
    assert works(CPU, torch.bfloat16, *SHAPE, False)


def test_numbers_of_32_bits_dropout_and_caps_go_row_by_row():
    assert takes(torch.bfloat16, 0.0, None)
    assert takes(torch.float16, 0.0, None)
    assert not takes(torch.float32, 0.0, None)
    assert not takes(torch.bfloat16, 0.1, None)
    assert not takes(torch.bfloat16, 0.0, 50.0)


def test_the_cpu_goes_row_by_row(kernel):
    kernel(documented)
    tensors = [torch.ones(1, heads, 3, 16, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    assert not goes_at_once(*tensors, 0.0, None, None)


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a GPU of compute capability 8 or above",
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("has_window", [False, True], ids=["whole", "window"])
def test_a_gpus_kernel_attends_as_row_by_row(dtype, has_window):
    works.cache_clear()
    assert works(torch.device("cuda"), dtype, 8, 2, 128, has_window)
