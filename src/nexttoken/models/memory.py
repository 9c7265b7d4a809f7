"""Memory: how much there is, how much was used at most, and what to change when it was not enough."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from nexttoken.errors import UserError
from nexttoken.models.allocator import give_back

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what clear_refs takes for "the peak of resident memory is what is resident now" (man 5 proc)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on `device`; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    import psutil  # comes with peft

    give_back()  # what the C library keeps can be allocated too, and no system counts it as free
    return psutil.virtual_memory().available if device.type == "cpu" else None


def peak_memory_mb() -> float:
    """Peak memory in MiB since `forget_peak`: the GPU's allocations where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if STATUS.exists() and (peak := re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(peak[1]) / 2**10
    import resource  # POSIX only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def forget_peak() -> None:
    """Begin a new peak: folds that train one after the other in a process must not inherit each other's.

    Where the system cannot (macOS, some containers) the peak stays the process's.
    """
    gc.collect()  # what the fold before left behind is not this one's
    give_back()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the GPU allocator's own error, and for the plain RuntimeError of torch's CPU allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def advice_on_memory(batch_tokens: int) -> Iterator[None]:
    """Turn an out-of-memory error into the settings that would need less."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"out of memory ({reason}); try batch_tokens={batch_tokens // 2}, fit.gradient_checkpointing=true, a lower"
            " max_tokens or a smaller model; python -m nexttoken plan shows what the same settings need"
        ) from None


def go_on_in_halves() -> None:
    """Say what happens after an out-of-memory error, and give back what the failed batch still holds."""
    print("out of memory: from here on every batch goes through in two halves (batch_tokens is too high)")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
