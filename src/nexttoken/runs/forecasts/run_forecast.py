"""Forecast of a prediction by a finished run, on this machine or on a device with a sheet."""

import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import DeviceSheet
from nexttoken.runs.answer_set import answers_of
from nexttoken.runs.blend import is_blend, member_folder, read_blend
from nexttoken.runs.config import Changes
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.forecasts.forecast import Forecast, forecast_on_sheet
from nexttoken.runs.forecasts.run_weights import budget_of, disk_bytes, tokenizer_of
from nexttoken.runs.forecasts.trial_rows import RowSource, clocks, count_tokens, reworded, spread
from nexttoken.runs.load import load
from nexttoken.types import Example

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun

TRIAL_SECONDS = 8.0  # of the timed part of a trial, by the slower of both clocks
ENOUGH = 0.5  # of them: a trial that took this long is not repeated with more rows
MAX_LOADING = 60.0  # seconds of the first rows, up to which they are repeated without the imports
FIRST_ROWS, MAX_ROWS = 4, 4000  # of a trial
ROW_TOKENS = 20.0  # what a row costs beside its texts, in tokens
SPREAD = 0.15  # around a forecast on this machine; docs/speed.md has errors that were measured


def forecast(
    folder: Path,
    rows: int | None = None,
    sheet: DeviceSheet | None = None,
    input_dir: str | None = None,
    base: str | None = None,
    started: float | None = None,
) -> Forecast:
    """The prediction of `rows` rows (None: the test file's) by a finished run, on `sheet` or on this machine.

    `started` is the time at which this process began, whose start then counts, too. Here a few rows are predicted.
    Raises UserError as `load` does, and for fewer than one row.
    """
    if sheet is not None and is_blend(folder):
        members = [one for one in read_blend(folder).members if not one.is_baseline]
        every = [forecast(member_folder(one, folder).path, rows, sheet, input_dir, base) for one in members]
        return sum(every[1:], every[0])
    with TemporaryDirectory(prefix="forecast-") as written:
        run = load(RunFolder(folder), input_dir, base=base, changes=Changes(folder=Path(written)))
        source = RowSource.of(run.parts)
        number = source.num_test if rows is None else rows
        if number < 1:
            raise UserError(f"{run.parts.settings.input_dir} has no test rows; give their number with rows=...")
        return forecast_on_sheet(run, source, number, sheet) if sheet else forecast_here(run, source, number, started)


def forecast_here(run: "LoadedRun", source: RowSource, number: int, started: float | None = None) -> Forecast:
    """By a trial: a few rows with all that is loaded for them, then as many as take some seconds."""
    from nexttoken.models.memory import forget_peak, peak_memory_mb

    forget_peak()
    trial = Trial(run, source)  # with the imports that a prediction needs
    begun = np.array([time.time() - started if started else 0.0, time.process_time()]) - source.reading
    first, few = trial(FIRST_ROWS)
    loading = trial(FIRST_ROWS)[0] if first[0] < MAX_LOADING else first
    size, taken, cost = FIRST_ROWS, loading, few
    while (spent := (taken - loading).min()) < ENOUGH * TRIAL_SECONDS and size < MAX_ROWS:
        growth = TRIAL_SECONDS / max(spent, 1e-9) if size > FIRST_ROWS else 2.0
        size = min(MAX_ROWS, max(size + 1, int(size * min(growth, 8.0))))
        taken, cost = trial(size)
    rates = np.maximum(taken - loading, 0.0) / (cost - few)
    wall, processor = (begun + first + source.row_seconds * number + rates * (trial.mean_cost * number - few)).tolist()
    assumed = (
        f"{number:,} rows as long as the {source.split} rows, {trial.tokens.mean():.0f} tokens of text each",
        f"measured here on {size:,} rows in {taken[0]:.1f} s, {loading[0]:.1f} s of them loading; no cache helps",
        f"{processor:.0f} s of processor time; other work on this machine takes the rest",
    )
    peak = int(peak_memory_mb() * 2**20)
    return Forecast((wall * (1 - SPREAD), wall * (1 + SPREAD)), peak, disk_bytes(run), processor, assumed)


class Trial:
    """Predictions of more and more rows that no cache knows; a call returns their times and their cost in tokens.

    The times (2,) are seconds, and seconds of processor time.
    """

    def __init__(self, run: "LoadedRun", source: RowSource) -> None:
        self.run, self.source, self.turn = run, source, 0
        self.tokens = count_tokens(source.examples, tokenizer_of(run), budget_of(run))
        self.mean_cost = float(self.tokens.mean()) + ROW_TOKENS
        self.rewords = not str(run.parts.settings.retriever.get("_target_")).endswith(".Recorded")  # known words only

    def __call__(self, number: int) -> tuple[np.ndarray, float]:
        self.turn += 1
        rows: list[Example] = []
        places = spread(self.tokens, number)
        for count, place in enumerate(places):
            example, turn = self.source.examples[place], self.turn + 97 * (count // len(self.tokens))
            rows.append(reworded(example, turn) if self.rewords else replace(example, id=f"{example.id} {count}"))
        start = clocks()
        with redirect_stdout(StringIO()):  # what a gate says of the few rows is no news
            answers_of(self.run.parts.task).answer(self.run, rows)
        return clocks() - start, float(self.tokens[places].sum()) + ROW_TOKENS * number
