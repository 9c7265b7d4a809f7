"""Memory as it is measured, and the errors that mean it was too short."""

import pytest
import torch

from nexttoken.errors import UserError
from nexttoken.models.memory import (
    CLEAR_REFS,
    STATUS,
    advice_on_memory,
    forget_peak,
    free_memory,
    is_out_of_memory,
    peak_memory_mb,
)

CPU = torch.device("cpu")
on_linux_cpu = pytest.mark.skipif(
    torch.cuda.is_available() or not STATUS.exists() or not CLEAR_REFS.exists(), reason="resident memory on Linux"
)


def test_free_memory_is_less_by_what_is_taken():
    before = free_memory(CPU)
    taken = torch.ones(2**27)  # 512 MiB, all of it touched
    assert before is not None
    assert before - free_memory(CPU) > 0.5 * taken.nbytes  # other processes come and go
    assert free_memory(torch.device("meta")) is None


@on_linux_cpu
def test_a_forgotten_peak_is_not_inherited():
    forget_peak()
    start = peak_memory_mb()
    taken = torch.ones(2**26)
    high = peak_memory_mb()
    assert 240 < high - start < 300  # 256 MiB
    del taken
    assert peak_memory_mb() >= high - 1
    forget_peak()
    if peak_memory_mb() >= high - 1:
        pytest.skip("this kernel does not reset the peak")
    assert peak_memory_mb() < high - 200


def test_the_cpu_allocators_error_becomes_advice():
    expected = r"^out of memory \(.*batch_tokens=2048.*gradient_checkpointing"
    with pytest.raises(UserError, match=expected) as error, advice_on_memory(4096):
        torch.empty(2**60)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_other_errors_pass():
    with pytest.raises(ValueError, match="another"), advice_on_memory(4096):
        raise ValueError("another")
