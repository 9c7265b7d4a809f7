"""Both ways of asking folds in one process: all in one go, and as runs of one fold and one order each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fold_runs import FOLDS, ORDERS, Runs, average
from benchmarks.sides import Answers, Work


class Asked(Work):
    """A way of asking everything, models loaded anew each time; notes how often a base was loaded, and how long."""

    def __init__(self, folder: Path) -> None:
        from nexttoken.models import fold_weights as weights  # noqa: F401  (imported before the clock runs)

        self.runs = Runs(folder)
        self.loads, self.seconds = 0, 0.0

    def run(self) -> Answers:
        self.loads, self.seconds = 0, 0.0
        with self._noting():
            return Answers(self.ask())

    def loaded(self) -> tuple[int, float]:
        """How often the last run loaded a base, and the seconds that loading folds took, all of it."""
        return self.loads, self.seconds

    def ask(self) -> np.ndarray:
        raise NotImplementedError

    @contextmanager
    def _noting(self) -> Iterator[None]:
        from nexttoken.engine.answerers import FoldModels
        from nexttoken.models import fold_weights as weights

        load_model, answerer = weights.load_model, FoldModels.answerer

        def counted(*given: Any, **options: Any) -> Any:
            self.loads += 1
            return load_model(*given, **options)

        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            found = answerer(*given)
            self.seconds += time.perf_counter() - start
            return found

        weights.load_model, FoldModels.answerer = counted, timed  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            weights.load_model, FoldModels.answerer = load_model, answerer  # type: ignore[method-assign]


class Together(Asked):
    """The run of five folds, asked in both orders at once."""

    def ask(self) -> np.ndarray:
        return _ask(self.runs.together, self.runs.input_dir("straight"))


class Separately(Asked):
    """Ten runs, one after the other."""

    def ask(self) -> np.ndarray:
        asked = [(self.runs.alone(fold), self.runs.input_dir(order)) for fold in FOLDS for order in ORDERS]
        return average([_ask(*one) for one in asked])


def _ask(run: Path, input_dir: Path) -> np.ndarray:
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.loaded import LoadedRun

    loaded = LoadedRun.load(RunFolder(run), str(input_dir))
    return loaded.answer(loaded.parts.task.read("test")).probs
