"""Forecast the hours, memory and disk of a prediction by a finished run, here or on a device that is not here.

python -m nexttoken forecast run=output/lmsys/<name> rows=25000
python -m nexttoken forecast run=output/lmsys/<name> rows=25000 device=t4x2

Arguments:
  run=...          a finished run
  rows=...         rows to predict (default: those of the test file)
  device=...       this (the default), where a few rows are predicted, or by their data sheets t4, t4x2, v100, l4,
                   rtx4090, a100_40gb, a100, h100 or rtx_pro_6000
  base=...         where the base model lies on this machine
  input_dir=...    folder of the run's files
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.models.device_sheets import THIS, DeviceName, find_sheet

MINUTE, HOUR = 60.0, 3600.0


class ForecastArguments(Arguments):
    run: RunPath
    rows: Annotated[int, Field(ge=1)] | None = None
    device: DeviceName = THIS
    base: str | None = None
    input_dir: str | None = None


def main(arguments: Sequence[str]) -> None:
    given = ForecastArguments.parse(arguments)
    import psutil

    from nexttoken.engine.memory_plan.table import in_units
    from nexttoken.runs.forecasts.run_forecast import forecast

    sheet, started = find_sheet(given.device), psutil.Process().create_time()
    found = forecast(given.run, given.rows, sheet, given.input_dir, given.base, started)
    low, high = map(duration, found.seconds)
    print(f"forecast for {given.run} on {sheet or 'this machine'}")
    print(f"time    {low} to {high}")
    limit = f" of {in_units(sheet.free)} on each GPU" if sheet else ", the peak of the trial"
    print(f"memory  {in_units(found.memory)}{limit}")
    print(f"disk    {in_units(found.disk)} to read")
    if sheet and sheet.kaggle:
        verdict = "too long for" if found.seconds[1] > sheet.kaggle.hours * HOUR else "within"
        print(f"kaggle  {verdict} {sheet.kaggle.hours:g} hours, the usual limit of a code competition")
    print("\n".join(f"assumed: {line}" for line in found.assumed))


def duration(seconds: float) -> str:
    """Seconds in a readable unit: `42 s`, `12.5 min`, `3.1 hours`."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.1f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} hours"
