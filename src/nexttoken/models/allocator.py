"""The C library's memory on the CPU: kept for the next layer instead of being given back and asked for again.

glibc maps each large block anew and unmaps it when it is freed, so that every activation is first written into pages
that the kernel has to fetch and clear: 25,000 of them for 1,900 tokens of a 24M model (docs/speed.md).
"""

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST = 2**30  # bytes: what is smaller is kept


def give_back() -> None:
    """Return what is kept and not used to the system, so that the next peak is measured from what is really held."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None:
        trim(0)


@cache
def keep_freed_memory() -> bool:
    """Tell the C library, once a process; False where it is another one, which does as it likes.

    To be called first of all: a thread that has an arena already, as those of pyarrow have from their import on,
    leaves one for others to be put in, and what the arenas keep they do not share (docs/speed.md).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST), mallopt(TRIM_THRESHOLD, LARGEST), mallopt(ARENA_MAX, 1)])
