"""A chapter of the page: the runs of one data set, and what several sections need of them, read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.errors import UserError
from nexttoken.report.page.pairs import MAX_RUNS, PairDifference, pair_differences
from nexttoken.runs.folder import ASKED, FoldFolder, RunFolder
from nexttoken.runs.ledger import Submission
from nexttoken.runs.load import load
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.read import group_names, read_groups
from nexttoken.runs.read_open import short_names
from nexttoken.runs.scored_runs import Data, Run, classes_of, ranked
from nexttoken.types import Example, Metric

LONG_NAME = 24  # characters of a run's name, from which on names are shortened


@dataclass(frozen=True)
class Chapter:
    """The runs of a closed task on one data set, the best first; `key` begins the anchors of its sections."""

    key: str
    data: Data
    runs: tuple[Run, ...]
    submissions: tuple[Submission, ...] = ()
    submissions_dir: Path | None = None  # of the files that the ledger knows
    every_row: bool = False  # texts are kept whole, however many there are
    input_dir: str | None = None
    _loaded: dict[str, LoadedRun] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.data.dataset} ({self.data.task})"

    @property
    def metric(self) -> Metric:
        """The task's own metric."""
        return self.runs[0].metric

    @cached_property
    def classes(self) -> list[str]:
        return classes_of(self.runs[0].folds[0].oof)

    @cached_property
    def configs(self) -> list[dict[str, Any]]:
        """The configuration of each run's first fold."""
        return [FoldFolder(run.folds[0].folder).config() for run in self.runs]

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """Of each run: the group of near-duplicates of each row of its `oof`, as a name (N,)."""
        return [np.array(group_names(run.oof["id"], read_groups(run.folder))) for run in self.runs]

    @cached_property
    def pairs(self) -> list[PairDifference]:
        """The differences of the best runs from each other."""
        return pair_differences(self.runs[:MAX_RUNS], [one.tolist() for one in self.groups[:MAX_RUNS]], self.metric)

    def load(self, run: Run) -> LoadedRun:
        """The run as predict.py has it, without weights. Raises UserError where its files or data are not here."""
        if run.name not in self._loaded:
            self._loaded[run.name] = load(RunFolder(run.folder), self.input_dir)
        return self._loaded[run.name]

    @cached_property
    def _examples(self) -> tuple[dict[str, Example], str]:
        reasons = []
        for run in self.runs:
            try:
                loaded = self.load(run)
                return {one.id: one for fold in loaded.folds for one in loaded.held_out(fold)}, ""
            except UserError as error:
                reasons.append(str(error))
        return {}, reasons[0]

    @property
    def examples(self) -> dict[str, Example]:
        """The held-out examples by id, of the best run whose data is here; {} where none is."""
        return self._examples[0]

    @property
    def why_no_examples(self) -> str:
        """The reason where there are no examples, else ""."""
        return self._examples[1]


def with_short_names(runs: Sequence[Run]) -> list[Run]:
    """The runs, with names without the words that all of them share where a name is long."""
    bases = list(dict.fromkeys(map(_base, runs)))
    if max(map(len, bases)) <= LONG_NAME:
        return list(runs)
    short = dict(zip(bases, short_names(bases), strict=True))
    return [
        replace(run, name=short[base] + run.name.removeprefix(base))
        for run, base in zip(runs, map(_base, runs), strict=True)
    ]


def _base(run: Run) -> str:
    """The name of the run that was trained, of one asked in another way."""
    return run.name.partition(f"/{ASKED}/")[0]


def chapters_of(runs: tuple[Run, ...], submissions: tuple[Submission, ...], **options: Any) -> list[Chapter]:
    """A chapter for each data set, the one with the most runs first."""
    by_rows: dict[tuple[Data, tuple[str, ...]], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.data):
        by_rows.setdefault((run.data, tuple(classes_of(run.folds[0].oof))), []).append(run)
    groups = sorted(((data, group) for (data, _), group in by_rows.items()), key=lambda pair: -len(pair[1]))
    return [
        Chapter(f"c{place}", data, tuple(ranked(with_short_names(group))), submissions, **options)
        for place, (data, group) in enumerate(groups, start=1)
    ]
