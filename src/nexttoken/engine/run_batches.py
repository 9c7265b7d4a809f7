"""Runs prompts through a model in batches, divided among the processes, with a journal and one retry in halves."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.forward.parallel_batches import MAX_PARALLEL_BATCHES, ParallelStreams
from nexttoken.engine.forward.shortcuts import evaluating
from nexttoken.engine.journal import NO_JOURNAL, LabelJournal
from nexttoken.engine.streamed_layers import in_passes, run_streamed
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.processes import gather_rows, num_ranks, rank
from nexttoken.models.sharded import is_sharded
from nexttoken.models.streamed import LayerStream, layer_stream
from nexttoken.progress import Progress

RunBatch = Callable[[nn.Module, Sequence[Any]], np.ndarray]  # a model and the n rows of a batch -> (n, C) float64


@torch.inference_mode()
def run_batches(
    model: nn.Module,
    rows: Sequence[Any],
    lengths: Sequence[int],
    batches: Sequence[list[int]],
    run_batch: RunBatch,
    title: str,
    journal: LabelJournal = NO_JOURNAL,
) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, C) that `run_batch` returns, in the order of `rows`, and seconds (N,) per row.

    `batches` are row numbers for all processes; every process returns all rows. A batch in the journal is not run. A
    row's seconds are its share, by tokens, of its batch's time; parallel batches divide the time among them. If memory
    runs out, the remaining batches are halved, once. Values may be not finite (engine/non_finite.py).
    """
    if (stream := layer_stream(model)) is not None:
        own = batches[rank() :: num_ranks()]
        through = run_through_layers(stream, model, rows, lengths, own, run_batch, title, journal)
        gathered = np.array(gather_rows(through, len(rows)))
        return gathered[:, :-1], gathered[:, -1]
    shares = [batches[number :: num_ranks()] for number in range(num_ranks())]
    waiting = list(shares[rank()])
    values: dict[int, np.ndarray] = {}
    halved = is_sharded(model)  # processes of a sharded model have to make the same number of calls
    num_threads = torch.get_num_threads()

    def run_or_look_up(model: nn.Module, members: list[int]) -> tuple[np.ndarray, np.ndarray, bool]:
        batch, start = [rows[index] for index in members], time.perf_counter()
        known = journal.lookup(batch)
        if known is not None:
            return *known, True
        result, tokens = run_batch(model, batch), np.array([lengths[index] for index in members])
        share = torch.get_num_threads() / num_threads  # parallel batches have the other threads
        return result, (time.perf_counter() - start) * share * tokens / tokens.sum(), False

    with evaluating(model), Progress(sum(map(len, waiting)), title) as progress:
        streams = ParallelStreams(model, min(MAX_PARALLEL_BATCHES, len(waiting)))
        while waiting:
            todo = iter(waiting)
            try:
                for result, seconds, is_known in streams.map(run_or_look_up, waiting):
                    members = next(todo)
                    journal.num_known += len(members) if is_known else 0
                    if not is_known:
                        result = journal.save([rows[index] for index in members], result, seconds)
                    values |= dict(zip(members, np.column_stack([result, seconds]), strict=True))
                    progress.advance(len(members))
                break
            except Exception as error:
                if halved or not is_out_of_memory(error):
                    raise
            halved = True
            go_on_in_halves()  # outside the handler, because the error holds on to the memory
            waiting = [half for batch in todo for half in halves(batch)]
        for _ in range(max(map(len, shares)) - len(shares[rank()]) if is_sharded(model) else 0):
            run_batch(model, rows[-1:])
    gathered = np.array(gather_rows(values, len(rows)))
    return gathered[:, :-1], gathered[:, -1]


def run_through_layers(
    stream: LayerStream,
    model: nn.Module,
    rows: Sequence[Any],
    lengths: Sequence[int],
    batches: Sequence[list[int]],
    run_batch: RunBatch,
    title: str,
    journal: LabelJournal,
) -> dict[int, np.ndarray]:
    """Values and seconds of each row, by its number, from a model whose layers stay in files."""
    values: dict[int, np.ndarray] = {}
    new: list[list[int]] = []
    for members in batches:
        known = journal.lookup([rows[index] for index in members])
        if known is None:
            new.append(members)
            continue
        journal.num_known += len(members)
        values |= dict(zip(members, np.column_stack(known), strict=True))
    sizes = [len(members) * max(lengths[index] for index in members) for members in new]
    state_bytes = model.config.get_text_config().hidden_size * next(model.parameters()).element_size()  # type: ignore
    with evaluating(model), Progress(sum(map(len, new)) * len(stream), f"{title}, rows x layers") as progress:
        for part in in_passes(new, sizes, state_bytes):
            start = time.perf_counter()
            results = list(
                run_streamed(
                    stream,
                    part,
                    lambda members: run_batch(model, [rows[index] for index in members]),
                    lambda members: progress.advance(len(members)),
                )
            )
            per_token = (time.perf_counter() - start) / sum(lengths[index] for members in part for index in members)
            for members, result in zip(part, results, strict=True):
                seconds = per_token * np.array([lengths[index] for index in members])
                result = journal.save([rows[index] for index in members], result, seconds)
                values |= dict(zip(members, np.column_stack([result, seconds]), strict=True))
    return values


def halves(rows: Sequence[Any]) -> list[Any]:
    """The two halves of a batch; a single row stays whole."""
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]
