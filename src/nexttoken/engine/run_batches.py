"""Rows through a model in batches filled by tokens, each process its share: how labels and answers are read."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.answer_journal import NOT_KEPT, AnswerJournal
from nexttoken.engine.forward.parallel_batches import MOST, Streams
from nexttoken.engine.forward.shortcuts import evaluating
from nexttoken.errors import UserError, first_five
from nexttoken.models.collective import gather_rows
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.processes import num_ranks, rank
from nexttoken.models.sharded import is_sharded
from nexttoken.progress import Progress

Ask = Callable[[nn.Module, Sequence[Any]], np.ndarray]  # a model and the n rows of a batch -> (n, C) float64


@torch.inference_mode()
def ask_rows(
    model: nn.Module,
    rows: Sequence[Any],
    lengths: Sequence[int],
    planned: Sequence[list[int]],
    ask: Ask,
    what: str,
    journal: AnswerJournal = NOT_KEPT,
) -> tuple[np.ndarray, np.ndarray]:
    """What `ask` says of each row, (N, C) in order, and its share of its batch's seconds, (N,), by its tokens.

    `planned` are the numbers of the rows that go through the model together, those of all processes. Batches that the
    journal knows are not asked. Memory that is too short halves the batches, once. With several processes all of them
    return all rows. Batches side by side share the time that they take. Raises UserError, naming ids, for what is not
    finite: no NaN ever reaches a file.
    """
    shares = [planned[number :: num_ranks()] for number in range(num_ranks())]
    batches = list(shares[rank()])
    answers: dict[int, np.ndarray] = {}
    halved = is_sharded(model)  # whose processes have to make equally many calls
    num_threads = torch.get_num_threads()

    def known_or_asked(model: nn.Module, members: list[int]) -> tuple[np.ndarray, np.ndarray, bool]:
        batch, start = [rows[index] for index in members], time.perf_counter()
        known = journal.known(batch)
        if known is not None:
            return *known, True
        found, own = ask(model, batch), np.array([lengths[index] for index in members])
        part = torch.get_num_threads() / num_threads  # of the machine: batches beside this one have the rest
        return found, (time.perf_counter() - start) * part * own / own.sum(), False

    with evaluating(model), Progress(sum(map(len, batches)), what) as progress:
        streams = Streams(model, min(MOST, len(batches)))
        while batches:
            todo = iter(batches)
            try:
                for found, seconds, is_known in streams.map(known_or_asked, batches):
                    members = next(todo)
                    if is_known:
                        journal.num_known += len(members)
                    else:
                        found = journal.added([rows[index] for index in members], found, seconds)
                    answers |= dict(zip(members, np.column_stack([found, seconds]), strict=True))
                    progress.advance(len(members))
                break
            except Exception as error:
                if halved or not is_out_of_memory(error):
                    raise
                halved = True
            go_on_in_halves()  # outside of the handler, whose error holds on to the memory
            batches = [half for batch in todo for half in halves(batch)]
        num_fillers = max(map(len, shares)) - len(shares[rank()])
        for _ in range(num_fillers if is_sharded(model) else 0):
            ask(model, rows[-1:])
    gathered = np.array(gather_rows(answers, len(rows)))
    if bad := [row.id for row, values in zip(rows, gathered, strict=True) if not np.isfinite(values).all()]:
        raise UserError(
            f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
        )
    return gathered[:, :-1], gathered[:, -1]


def halves(rows: Sequence[Any]) -> list[Any]:
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]
