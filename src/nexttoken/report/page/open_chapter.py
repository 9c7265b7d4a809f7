"""A chapter of the page on open answers: runs that write texts, scored by their loss and by what they wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

import pandas as pd

from nexttoken.data.csv_tables import read_table
from nexttoken.data.files import read_json
from nexttoken.errors import UserError
from nexttoken.report.ranking import Comparison
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.load import load
from nexttoken.runs.read_open import OpenRun, Outputs, saved_outputs, score_texts

JUDGE_AGAIN = "run python -m nexttoken judge again"


@dataclass(frozen=True)
class OpenChapter:
    """Runs of an open task on one data set; `key` begins the anchors of its sections."""

    key: str
    task: str
    dataset: str
    runs: tuple[OpenRun, ...]
    every_row: bool = False
    input_dir: str | None = None
    _reasons: dict[str, None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.dataset} ({self.task})"

    @cached_property
    def outputs(self) -> list[Outputs]:
        """Of each run: its texts and the rows that they answer; nothing where they are not here."""
        return [self._outputs_of(run) for run in self.runs]

    def _outputs_of(self, run: OpenRun) -> Outputs:
        try:
            return saved_outputs(run, load(RunFolder(run.folder), self.input_dir))
        except UserError as error:
            self._reasons[str(error)] = None
            return Outputs({}, {})

    @cached_property
    def tables(self) -> dict[tuple[str, int], pd.DataFrame]:
        """By variant and seed: each row's costs and the scores of what was written, with the marks of a judge."""
        pairs = zip(self.runs, self.outputs, strict=True)
        return {(run.variant, run.seed): self._marked(score_texts(run, outputs), run) for run, outputs in pairs}

    def _marked(self, table: pd.DataFrame, run: OpenRun) -> pd.DataFrame:
        try:
            return _with_marks(table, run)
        except UserError as error:
            self._reasons[str(error)] = None
            return table

    @property
    def reasons(self) -> list[str]:
        """Reasons why texts or marks of some runs are not here."""
        return list(self._reasons) if self.tables else []

    @cached_property
    def comparison(self) -> Comparison:
        """Raises UserError where the runs share no row."""
        return Comparison.of(self.tables)


def open_chapters_of(runs: Sequence[OpenRun], **options: object) -> list[OpenChapter]:
    """A chapter for each task and data set."""
    by_data = groupby(sorted(runs, key=_data_of), key=_data_of)
    return [
        OpenChapter(f"o{place}", *data, tuple(group), **options)  # type: ignore[arg-type]
        for place, (data, group) in enumerate(by_data, start=1)
    ]


def references(run: OpenRun) -> Mapping[str, float]:
    """Nats per character of guesses that know no model: of equally probable characters, and of n-grams."""
    names = {"uniform_nll_per_character": "equally probable characters", "baseline_nll_per_character": "n-grams"}
    saved = read_json(next(iter(run.folds)).path / "metrics.json")
    return {name: saved[key] for key, name in names.items() if isinstance(saved.get(key), int | float)}


def _data_of(run: OpenRun) -> tuple[str, str]:
    return run.task, str(read_json(next(iter(run.folds)).path / "metrics.json").get("dataset", "unknown data"))


def _with_marks(table: pd.DataFrame, run: OpenRun) -> pd.DataFrame:
    """The marks that python -m nexttoken judge saved for the texts that the run has today."""
    task_dir = run.folder.resolve().parent
    path = task_dir.parent / "judge" / task_dir.name / "judged.csv"
    if not path.exists():
        return table
    judged = read_table(path, ["id", "run", "output", "mark"], JUDGE_AGAIN)
    judged = judged[judged["run"].map(lambda name: Path(name).name) == run.folder.name]
    marks = dict(zip(zip(judged["id"], judged["output"], strict=True), judged["mark"], strict=True))
    own = [marks.get(pair) for pair in zip(table["id"], table["output"], strict=True)]
    return table.assign(mark=pd.to_numeric(pd.Series(own, index=table.index, dtype=object), errors="coerce"))
