"""Forecast of a prediction by a finished run, on this machine or on a device with a sheet."""

from pathlib import Path
from tempfile import TemporaryDirectory

from nexttoken.errors import UserError
from nexttoken.models.device_sheets import DeviceSheet
from nexttoken.runs.blend import is_blend, member_folder, read_blend
from nexttoken.runs.config import Changes
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.forecasts.device import forecast_on_sheet
from nexttoken.runs.forecasts.forecast import Forecast
from nexttoken.runs.forecasts.trial import forecast_here
from nexttoken.runs.forecasts.trial_rows import RowSource
from nexttoken.runs.load import load


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
