"""A target: one kind of input, the call that is to obey the rule, and sound inputs to begin with."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fuzz.rule import obey
from support.mutations import mutated
from support.read_files import Reader


@dataclass(frozen=True)
class Target:
    """`one_input` returns True for input that is taken, as the `samples` are, and raises BrokenRule for a broken rule.

    The first `num_kept` bytes of an input choose what the others are read as, and are not altered.
    """

    one_input: Callable[[bytes], bool]
    samples: tuple[bytes, ...]
    num_kept: int = 0

    def altered(self, data: bytes, seed: int) -> bytes:
        """The input, altered as disks, editors, downloads and strangers alter files."""
        return data[: self.num_kept] + mutated(random.Random(seed), data[self.num_kept :])


def file_target(readers: Iterable[Reader], says_name: bool = True) -> Target:
    """Files in the place of sound ones, at most 256: the first byte chooses the file, the others are its content."""
    files = [(path, read, path.read_bytes()) for path, read in readers]
    assert 0 < len(files) <= 256

    def one_input(data: bytes) -> bool:
        path, read, sound = files[(data[0] if data else 0) % len(files)]
        path.write_bytes(data[1:])
        try:
            return obey(lambda: read(path), *(names_of(path) if says_name else ()))
        finally:
            path.write_bytes(sound)

    return Target(one_input, tuple(bytes([place]) + sound for place, (_, _, sound) in enumerate(files)), num_kept=1)


def names_of(path: Path) -> tuple[str, ...]:
    """Names of which a refusal of this file has one: the file, its folder, or the run of its fold."""
    run = [str(path.parent.parent)] if path.parent.name.startswith("fold") else []
    return path.name, str(path.parent), *run
