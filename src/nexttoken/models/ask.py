"""Rows through a model in batches filled by tokens, each process its share: how labels and answers are read."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.collective import gather_rows
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.sharded import is_sharded
from nexttoken.progress import Progress
from nexttoken.ranks import num_ranks, rank

Ask = Callable[[Sequence[Any]], np.ndarray]  # the n rows of a batch -> (n, C) float64


@torch.inference_mode()
def ask_rows(
    model: nn.Module, rows: Sequence[Any], lengths: Sequence[int], planned: Sequence[list[int]], ask: Ask, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """What `ask` says of each row, (N, C) in order, and its share of its batch's seconds, (N,), by its tokens.

    `planned` are the numbers of the rows that go through the model together, those of all processes.
    Memory that is too short halves the batches, once. With several processes all of them return all rows.
    Raises UserError, naming ids, for what is not finite: no NaN ever reaches a file.
    """
    training = model.training
    model.eval()
    shares = [planned[number :: num_ranks()] for number in range(num_ranks())]
    batches = deque(shares[rank()])
    answers: dict[int, np.ndarray] = {}
    halved = is_sharded(model)  # whose processes have to make equally many calls
    with Progress(sum(map(len, batches)), what) as progress:
        while batches:
            members, start = batches.popleft(), time.perf_counter()
            try:
                found = ask([rows[index] for index in members])
            except Exception as error:
                if halved or not is_out_of_memory(error):
                    raise
                halved = True
            else:
                own = np.array([lengths[index] for index in members])
                seconds = (time.perf_counter() - start) * own / own.sum()
                answers |= dict(zip(members, np.column_stack([found, seconds]), strict=True))
                progress.advance(len(members))
                continue
            go_on_in_halves()  # outside of the handler, whose error holds on to the memory
            batches = deque(half for batch in (members, *batches) for half in halves(batch))
    num_fillers = max(map(len, shares)) - len(shares[rank()])
    for _ in range(num_fillers if is_sharded(model) else 0):
        ask(rows[-1:])
    model.train(training)
    gathered = np.array(gather_rows(answers, len(rows)))
    if bad := [row.id for row, values in zip(rows, gathered, strict=True) if not np.isfinite(values).all()]:
        raise UserError(
            f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
        )
    return gathered[:, :-1], gathered[:, -1]


def halves(rows: list[int]) -> list[list[int]]:
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]
