"""Parallel batches on the CPU, each on its share of the threads.

A single batch leaves threads idle: small operations between two matrix products run on one thread, and products of a
few hundred rows divide badly among threads (docs/speed.md).
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nexttoken.engine.forward.shortcuts import share_shortcuts
from nexttoken.models.sharded import is_sharded

MAX_PARALLEL_BATCHES = 4  # each holds its own activations

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[nn.Module, Item], Result]


class ParallelStreams:
    """A model and a copy of its modules, over the same weights, for every further parallel batch."""

    def __init__(self, model: nn.Module, most: int = MAX_PARALLEL_BATCHES) -> None:
        self.models = [model, *copies_sharing_weights(model, num_streams(model, most) - 1)]
        share_shortcuts(model, self.models[1:])

    def map(self, work: Work[Item, Result], items: Sequence[Item], from_both_ends: bool = False) -> Iterator[Result]:
        """Yield `work(model, item)` in the order of the items, in the caller's grad mode.

        Items after the last full round run one by one, with all threads. With `from_both_ends` one stream begins with
        the first items and the others with the last, so that large items, which come first, seldom run together.
        """
        together = len(items) - len(items) % len(self.models) if len(self.models) > 1 else 0
        if together:
            yield from self._at_once(work, items[:together], from_both_ends)
        for item in items[together:]:
            yield work(self.models[0], item)

    def _at_once(self, work: Work[Item, Result], items: Sequence[Item], from_both_ends: bool) -> Iterator[Result]:
        threads, waiting = torch.get_num_threads(), deque(range(len(items)))
        inference, learns = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        results: dict[int, Future[Result]] = {number: Future() for number in waiting}

        def run(model: nn.Module, take: Callable[[], int]) -> None:
            torch.set_num_threads(threads // len(self.models))
            with torch.inference_mode(inference), torch.set_grad_enabled(learns), suppress(IndexError):
                while True:  # until `take` raises IndexError
                    number = take()
                    try:
                        results[number].set_result(work(model, items[number]))
                    except BaseException as error:  # raised to the caller by result(); the items left are not started
                        results[number].set_exception(error)
                        while True:
                            results[waiting.pop()].set_exception(error)

        takes = [waiting.popleft, *([waiting.pop if from_both_ends else waiting.popleft] * (len(self.models) - 1))]
        streams = [Thread(target=run, args=pair, daemon=True) for pair in zip(self.models, takes, strict=True)]
        for stream in streams:
            stream.start()
        try:
            for number in range(len(items)):
                result = results[number].result()
                del results[number]
                yield result
        finally:
            waiting.clear()
            for stream in streams:
                stream.join()
            torch.set_num_threads(threads)  # new threads inherit this number


def max_parallel_batches(device: torch.device, most: int = MAX_PARALLEL_BATCHES) -> int:
    """The number of parallel batches on a device; 1 on a GPU.

    All get the same number of threads, because a sum's last bit depends on it, and as few as possible stay idle.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return max(range(2, min(threads, most) + 1), key=lambda number: (threads // number * number, number), default=1)


def num_streams(model: nn.Module, most: int) -> int:
    """The number of parallel batches of a model: 1 with weights off the CPU or layers that hold a batch's state."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    has_state = any(type(module).__name__ == "Linear8bitLt" for module in model.modules())
    return max_parallel_batches(torch.device("cpu"), most) if on_cpu and not has_state and not is_sharded(model) else 1


def copies_sharing_weights(model: nn.Module, number: int) -> list[nn.Module]:
    """That many copies, or none if a module holds something that cannot be copied (a lock, a product of weights)."""
    try:
        return [copy_sharing_weights(model) for _ in range(number)]
    except Exception:  # a model's own code may fail with any error
        return []


def copy_sharing_weights(model: nn.Module, replaced: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy of modules, hooks and configurations over the same weights; `replaced` maps ids of weights to others."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    states = (getattr(module, "quant_state", None) for module in model.modules())  # of 4-bit weights
    memo |= {id(state): state for state in states if state is not None}
    return copy.deepcopy(model, memo | dict(replaced or {}))
