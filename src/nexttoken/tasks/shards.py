"""The test rows of a task read in shards, so that they need not fit into memory, and how their answers are written."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.row_faults import Place
from nexttoken.tasks.answer_columns import SubmissionForm
from nexttoken.tasks.sample_file import SampleFile
from nexttoken.types import Example


@dataclass(frozen=True)
class Shards:
    """The rows of the test file `path`, `size` at a time.

    `rows` reads the file from its beginning, `make` turns some of its rows into examples or raises UserError for faulty
    ones, and `decide` has for class probabilities (N, K) and a threshold those whose best class is decided for.
    """

    path: Path
    size: int
    rows: Callable[[], Iterable[tuple[Place, Any]]]
    make: Callable[[list[tuple[Place, Any]]], list[Example]]
    form: SubmissionForm
    sample: SampleFile
    decide: Callable[[np.ndarray, float], np.ndarray]

    def __iter__(self) -> Iterator[Callable[[], list[Example]]]:
        """Yield for each shard a function that returns its examples: a shard that is not wanted costs only reading."""
        rows = iter(self.rows())
        while part := list(islice(rows, self.size)):
            yield lambda part=part: self.make(part)  # type: ignore[misc]
