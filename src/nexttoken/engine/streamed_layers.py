"""Many batches through a model whose layers stay in files: each layer is read once, and runs over all batches.

Between two layers a batch's hidden states are in memory, or in a file where they do not fit there. Every layer but one
is passed over in the model's own forward, so that whatever lies around the layers is the model's own. Source of the
method: the first place of MAP - Charting Student Math Misunderstandings (Kaggle 2025), a 32B model on two T4s.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nexttoken.data.files import cache_dir
from nexttoken.errors import UserError
from nexttoken.models.allocator import release_freed_memory
from nexttoken.models.memory import free_memory
from nexttoken.models.streamed import LayerStream

MEMORY_SHARE = 8  # an eighth of the free memory holds hidden states
DISK_SHARE = 2  # and half of the free disk; more rows than that go through in several passes


class _Reached(Exception):
    """Ends a batch's forward pass after the layer in memory."""


class Pass:
    """One pass of several batches: `current` is the layer in memory, `batch` the number of the batch that runs."""

    def __init__(self, stream: LayerStream, states: "KeptStates") -> None:
        self.stream, self.states, self.current, self.batch = stream, states, 0, 0

    def run_layer(self, number: int, compute: Callable, states: Tensor, args: Any, named: Any) -> Any:
        """Run the current layer on the kept states, and stop there; earlier layers pass on what they are given."""
        if number < self.current:
            return states
        if number:
            states = self.states.get(self.batch, states)
        output = compute(states, *args, **named)
        if number == len(self.stream) - 1:
            return output
        self.states.put(self.batch, output)
        raise _Reached


def run_streamed(
    stream: LayerStream, batches: Sequence[Any], run_batch: Callable[[Any], Any], advance: Callable[[Any], None]
) -> Iterator[Any]:
    """Yield `run_batch(batch)` of each batch in order; `advance` is called after each layer of each."""
    with kept_states(stream) as states:
        schedule = stream.schedule = Pass(stream, states)
        try:
            for schedule.current in range(len(stream)):
                is_last = schedule.current == len(stream) - 1
                stream.load(schedule.current, None if is_last else schedule.current + 1)
                try:
                    for schedule.batch, batch in enumerate(batches):
                        with suppress(_Reached):
                            yield run_batch(batch)
                        advance(batch)
                finally:
                    stream.free(schedule.current)
                    release_freed_memory()  # the next layers would lie beside the gaps
        finally:
            stream.schedule = None
            stream.stop_reading()


def in_passes(batches: Sequence[Any], sizes: Sequence[int], state_bytes: int) -> Iterator[Sequence[Any]]:
    """Batches of so many tokens, in parts whose hidden states fit into memory and disk: one, unless they are many."""
    room = memory_for_states() + disk_for_states()
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and (total + size) * state_bytes > room:
            yield batches[start:number]
            start, total = number, 0
        total += size
    if batches:
        yield batches[start:]


def memory_for_states() -> int:
    return (free_memory(torch.device("cpu")) or 0) // MEMORY_SHARE


def states_folder() -> Path:
    folder = cache_dir() / "states"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def disk_for_states() -> int:
    at = os.statvfs(states_folder())
    return at.f_bavail * at.f_frsize // DISK_SHARE


@contextmanager
def kept_states(stream: LayerStream) -> Iterator["KeptStates"]:
    """States in memory, and in a file that has no name and goes with the process."""
    with tempfile.TemporaryFile(dir=states_folder()) as file:
        yield KeptStates(memory_for_states(), file.fileno(), stream.device)


class KeptStates:
    """The hidden states of batches, in the dtype in which the layers return them."""

    def __init__(self, memory: int, file: int, device: torch.device) -> None:
        self.memory, self.file, self.device, self.end = memory, file, device, 0
        self._kept: dict[int, Tensor] = {}  # in memory, by the batch's number
        self._places: dict[int, tuple[int, int]] = {}  # in the file: offset and bytes
        self._dtype = torch.float32  # of all layers but the embeddings

    def put(self, batch: int, states: Tensor) -> None:
        size, self._dtype = states.numel() * states.element_size(), states.dtype
        if batch not in self._places and (batch in self._kept or size <= self.memory):
            self.memory -= 0 if batch in self._kept else size
            self._kept[batch] = states.detach().to("cpu", copy=True)
            return
        if batch not in self._places:
            self._places[batch] = (self.end, size)
            self.end += size
        data = states.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        self._write(data, self._places[batch][0])

    def get(self, batch: int, like: Tensor) -> Tensor:
        """The states of a batch, whose shape is that of `like`."""
        if batch in self._kept:
            return self._kept[batch].to(self.device)
        offset, size = self._places[batch]
        data = torch.empty(size, dtype=torch.uint8)
        view, read = data.numpy().data, 0
        while read < size:
            read += os.preadv(self.file, [view[read:]], offset + read)
        return data.view(self._dtype).view(like.shape).to(self.device)

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self.file, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            where = f"hidden states cannot be written in {states_folder()} ({error.strerror})"
            raise UserError(f"{where}; free disk space, or set NEXTTOKEN_CACHE to a folder with more") from None
