"""Several batches at once on the CPU, each on its share of the threads.

Between two products a batch has small operations that one thread does while the others wait, and a product of a few
hundred rows divides badly. Batches that do not wait for each other leave no thread idle (docs/speed.md).
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nexttoken.models.sharded import is_sharded
from nexttoken.models.shortcuts import take_shortcuts_of

MOST = 4  # batches at once: each holds activations of its own

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[nn.Module, Item], Result]


class Streams:
    """A model, and as many copies of its modules over the same weights as batches can go through it at once."""

    def __init__(self, model: nn.Module, most: int = MOST) -> None:
        self.models = [model, *twins(model, num_streams(model, most) - 1)]
        take_shortcuts_of(model, self.models[1:])

    def map(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """`work` of a model and each item, in the order of the items; in the grad mode of the caller.

        What is left over behind the last full round goes through the model alone, with all threads.
        """
        together = len(items) - len(items) % len(self.models) if len(self.models) > 1 else 0
        if together:
            yield from self._at_once(work, items[:together])
        for item in items[together:]:
            yield work(self.models[0], item)

    def _at_once(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        threads, free = torch.get_num_threads(), SimpleQueue[nn.Module]()
        inference, learns = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        for model in self.models:
            free.put(model)

        def run(item: Item) -> Result:
            model = free.get()
            try:
                with torch.inference_mode(inference), torch.set_grad_enabled(learns):  # both are a thread's own
                    return work(model, item)
            finally:
                free.put(model)

        size, share = len(self.models), threads // len(self.models)
        running: deque[Future[Result]] = deque()
        try:
            with ThreadPoolExecutor(size, "stream", torch.set_num_threads, (share,)) as pool:
                try:
                    for item in items:
                        running.append(pool.submit(run, item))
                        if len(running) > 2 * size:  # the next ones wait in line, and no result waits for long
                            yield running.popleft().result()
                    while running:
                        yield running.popleft().result()
                finally:
                    for future in running:
                        future.cancel()
        finally:
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
