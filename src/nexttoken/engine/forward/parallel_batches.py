"""Several batches at once on the CPU, each on its share of the threads.

Between two products a batch has small operations that one thread does while the others wait, and a product of a few
hundred rows divides badly. Batches that do not wait for each other leave no thread idle (docs/speed.md).
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

from nexttoken.engine.forward.shortcuts import take_shortcuts_of
from nexttoken.models.sharded import is_sharded

MOST = 4  # batches at once: each holds activations of its own

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[nn.Module, Item], Result]


class Streams:
    """A model, and as many copies of its modules over the same weights as batches can go through it at once."""

    def __init__(self, model: nn.Module, most: int = MOST) -> None:
        self.models = [model, *twins(model, num_streams(model, most) - 1)]
        take_shortcuts_of(model, self.models[1:])

    def map(self, work: Work[Item, Result], items: Sequence[Item], from_both_ends: bool = False) -> Iterator[Result]:
        """`work` of a model and each item, in the order of the items; in the grad mode of the caller.

        What is left over behind the last full round goes through the model alone, with all threads. With
        `from_both_ends` one stream begins with the first items and the others with the last: where the largest come
        first, those are seldom under way together.
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
                while True:  # until nothing waits
                    number = take()
                    try:
                        results[number].set_result(work(model, items[number]))
                    except BaseException as error:  # the caller's, who waits for it; nobody begins what is left
                        failed = [number]
                        with suppress(IndexError):
                            while True:
                                failed.append(waiting.pop())
                        for one in failed:
                            results[one].set_exception(error)

        takes = [waiting.popleft, *([waiting.pop if from_both_ends else waiting.popleft] * (len(self.models) - 1))]
        streams = [Thread(target=run, args=pair, daemon=True) for pair in zip(self.models, takes, strict=True)]
        for stream in streams:
            stream.start()
        try:
            for number in range(len(items)):
                found = results[number].result()
                del results[number]
                yield found
        finally:
            waiting.clear()
            for stream in streams:
                stream.join()
            torch.set_num_threads(threads)  # what threads that start later take over


def most_at_once(device: torch.device, most: int = MOST) -> int:
    """Batches that a device takes side by side: a GPU is full with one, and does them in their order.

    All have equally many threads, for a sum's last bit depends on them; so few threads as possible are left idle.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return max(range(2, min(threads, most) + 1), key=lambda number: (threads // number * number, number), default=1)


def num_streams(model: nn.Module, most: int) -> int:
    """How many batches may go through at once: one, unless the whole model is on the CPU and has threads to share.

    8-bit layers of bitsandbytes keep what a batch needs in themselves.
    """
    if is_sharded(model) or any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return 1
    if any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
        return 1
    return most_at_once(torch.device("cpu"), most)


def twins(model: nn.Module, number: int) -> list[nn.Module]:
    """So many twins, or none where a module holds what has no copy (a lock, a product of weights)."""
    try:
        return [twin(model) for _ in range(number)]
    except Exception:  # a model's own code may refuse in any way it likes
        return []


def twin(model: nn.Module, own: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy of the modules, hooks and configurations, over the same weights: two batches never share a module's state.

    Weights that are named in `own`, by id, are replaced by what stands there.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    states = (getattr(module, "quant_state", None) for module in model.modules())  # of 4-bit weights
    memo |= {id(state): state for state in states if state is not None}
    return copy.deepcopy(model, memo | dict(own or {}))
