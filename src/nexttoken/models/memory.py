"""Memory: how much was used at most, and what to change when it was not enough."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nexttoken.errors import UserError


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: the GPU's allocations where there is one, else resident memory."""
    import resource  # POSIX only

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@contextmanager
def advice_on_memory(batch_tokens: int) -> Iterator[None]:
    """Turn an out-of-memory error into the settings that would need less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"out of memory ({reason}); try batch_tokens={batch_tokens // 2}, a lower max_tokens or a smaller model"
        ) from None
