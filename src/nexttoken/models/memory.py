"""Memory: free and peak sizes, and the settings to change when it was not enough."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from nexttoken.errors import UserError, one_line
from nexttoken.models.allocator import release_freed_memory
from nexttoken.models.control_groups import control_group_room

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # resets the peak of resident memory when written to clear_refs (man 5 proc)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on `device`, under a container's limit, too; None where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    import psutil  # comes with peft

    release_freed_memory()  # the system does not count it as free
    if device.type != "cpu":
        return None
    free, room = psutil.virtual_memory().available, control_group_room()
    return free if room is None else min(free, room)


def peak_memory_mb() -> float:
    """Peak memory in MiB since `forget_peak`: the GPU's allocations where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if STATUS.exists() and (peak := re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(peak[1]) / 2**10
    import resource  # POSIX only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def forget_peak() -> None:
    """Begin a new peak, so that a fold does not report the peak of an earlier one in the same process.

    Where the system cannot do so (macOS, some containers) the peak is that of the whole process.
    """
    gc.collect()
    release_freed_memory()
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
    """Turn an out-of-memory error into a UserError that names settings with lower needs."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory ({one_line(error)}); try batch_tokens={batch_tokens // 2},"
            " fit.gradient_checkpointing=true, a lower max_tokens or a smaller model;"
            " python -m nexttoken plan shows what the same settings need"
        ) from None


def go_on_in_halves() -> None:
    """Announce that batches are halved after an out-of-memory error, and free the failed batch's memory."""
    print("out of memory: from here on every batch goes through in two halves (batch_tokens is too high)")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
