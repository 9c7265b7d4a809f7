"""What the processes of one run do together: wait, and put their rows back in one list."""

import atexit
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from nexttoken.errors import UserError, first_five
from nexttoken.models.load import choose_device
from nexttoken.models.processes import is_first, num_ranks, rank

T = TypeVar("T")


def join() -> None:
    """Meet the other processes, once; nothing for a run of one process."""
    if num_ranks() == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(choose_device())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", rank=rank(), world_size=num_ranks())
    atexit.register(distributed.destroy_process_group)


def wait() -> None:
    """Return when every process is here."""
    if num_ranks() > 1:
        join()
        distributed.barrier()


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in every process: a search of the web is not the same twice."""
    if num_ranks() == 1:
        return make()
    join()
    box: list[Any] = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather_rows(rows: dict[int, Any], num_rows: int) -> list[Any]:
    """All processes' rows in the order of their indices, in every process.

    Raises UserError when a row is missing or answered twice: a table with holes must never be written.
    """
    parts: list[Any] = [rows]
    if num_ranks() > 1:
        join()
        parts = [None] * num_ranks()
        distributed.all_gather_object(parts, rows)
    indices = sorted(index for part in parts for index in part)
    if indices != list(range(num_rows)):
        missing = sorted({*range(num_rows)} - {*indices})
        raise UserError(f"{len(indices)} answers came back for {num_rows} rows (missing: {first_five(missing)})")
    together = {index: row for part in parts for index, row in part.items()}
    return [together[index] for index in range(num_rows)]
