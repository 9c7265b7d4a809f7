"""The C library's memory on the CPU, reused for the next layer instead of being returned and requested again.

By default glibc maps and unmaps each large block, so that the kernel must clear new pages for every activation:
25,000 of them for 1,900 tokens of a 24M model (docs/speed.md). Imports no torch: it has to run first.
"""

import ctypes
import os
import sys
from functools import cache

from nexttoken.errors import UserError

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # malloc.h
MAX_REUSED_BYTES = 2**30
LIBRARIES_BYTES = 2_500_000_000  # of address space, for torch, transformers and pyarrow, which takes 1 GB of it at once
# oneDNN and torch keep the code of 1,024 products each, by their sizes: batches of other lengths add up to gigabytes.
CODE_CAPACITIES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}


def release_freed_memory() -> None:
    """Return unused memory to the system, so that the next peak measures only what is in use.

    Batches of other shapes leave gaps that later ones do not fill: without it, training grows from step to step.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None:
        trim(0)


@cache
def keep_freed_memory() -> bool:
    """Set this once a process, before anything else; False where the C library does not support it.

    Threads that already have an arena, such as pyarrow's, would make others use it, and arenas do not share memory.
    """
    for name, number in CODE_CAPACITIES.items():
        os.environ.setdefault(name, number)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    options = ((MMAP_THRESHOLD, MAX_REUSED_BYTES), (TRIM_THRESHOLD, MAX_REUSED_BYTES), (ARENA_MAX, 1))
    return mallopt is not None and [mallopt(*option) for option in options] == [1, 1, 1]


def refuse_low_limit() -> None:
    """Raise UserError where `ulimit -v` leaves too little to load the libraries: some of them hang then."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < LIBRARIES_BYTES:  # no limit is -1
        raise UserError(
            f"a process may use {limit / 1e9:.2f} GB of address space (ulimit -v), and the libraries alone need"
            f" {LIBRARIES_BYTES / 1e9:.1f} GB; allow more: ulimit -v unlimited"
        )
