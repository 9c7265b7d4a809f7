"""Forecast the time, memory and disk of a run's prediction; or size a training and a prediction on paper.

python -m nexttoken forecast run=output/lmsys/<name> rows=25000
python -m nexttoken forecast run=output/lmsys/<name> rows=25000 device=t4x2
python -m nexttoken forecast model=llama3_8b adapter=lora rows=60000 tokens=1000 device=h100 gpus=1,8,64

Arguments:
  run=...          a finished run
  rows=...         rows to predict (default: those of the test file); on paper those of each work
  device=...       this (the default), where a few rows are predicted, or by their data sheets t4, t4x2, v100, l4,
                   rtx4090, a100_40gb, a100, h100 or rtx_pro_6000
  base=...         where the base model lies on this machine
  input_dir=...    folder of the run's files

On paper, without a run:
  model=...        any model of train.py, with any other setting of it: key=value
  tokens=...       tokens of a row with its prompt, on average
  gpus=...         numbers of GPUs, such as 1,8,64
  price=...        price of a GPU for an hour in any currency, by which the cost is shown
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AllowInfNan, BeforeValidator, Field, PositiveFloat, PositiveInt

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.errors import UserError
from nexttoken.models.device_sheets import THIS, DeviceName, find_sheet
from nexttoken.progress import HOUR, duration


class ForecastArguments(Arguments):
    run: RunPath | None = None
    rows: Annotated[int, Field(ge=1)] | None = None
    device: DeviceName = THIS
    base: str | None = None
    input_dir: str | None = None
    model: str | None = None
    tokens: PositiveInt | None = None
    gpus: Annotated[tuple[PositiveInt, ...], BeforeValidator(lambda text: text.split(","))] = ()
    price: Annotated[PositiveFloat, AllowInfNan(False)] | None = None
    overrides: tuple[str, ...] = ()

    def refuse_unfit(self) -> None:
        """Raise UserError for arguments of one way beside the other's, and for those that are missing."""
        if (self.run is None) == (self.model is None):
            raise UserError(
                "expected run=output/<task>/<name>, a finished run, or model=... on paper; give one of them"
            )
        alone = [key for key in ("tokens", "gpus", "price") if getattr(self, key)] + list(self.overrides)
        if self.run is not None and alone:
            raise UserError(f"{alone[0].partition('=')[0]}= is for model=... on paper, not for a run; leave it out")
        if self.model is not None and (missing := [key for key in ("rows", "tokens") if getattr(self, key) is None]):
            raise UserError(f"{missing[0]}= is missing; on paper write rows=60000 tokens=1000 device=h100")
        if self.model is not None and self.device == THIS:
            raise UserError("device=this has no data sheet; name one, such as device=h100, or forecast a run here")


def main(arguments: Sequence[str]) -> None:
    given = ForecastArguments.parse(arguments)
    given.refuse_unfit()
    if given.run is None:
        show_on_paper(given)
    else:
        show_run(given)


def show_run(given: ForecastArguments) -> None:
    """Print the forecast of a prediction by a finished run."""
    import psutil

    from nexttoken.engine.memory_plan.table import in_units
    from nexttoken.runs.forecasts.run_forecast import forecast

    assert given.run is not None
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


def show_on_paper(given: ForecastArguments) -> None:
    """Print time, memory and limits of a training and a prediction on each number of GPUs, and what is assumed."""
    from nexttoken.commands.entry import compose_settings

    settings = compose_settings([f"model={given.model}", *given.overrides])
    from nexttoken.report.sized import sized_table
    from nexttoken.runs.forecasts.on_paper import Sizes, size_up

    sheet = find_sheet(given.device)
    assert sheet is not None
    assert given.rows is not None
    assert given.tokens is not None
    found, assumed = size_up(settings, sheet, Sizes(given.rows, given.tokens), given.gpus or (sheet.gpus,))
    print(f"on paper: {' '.join([f'model={given.model}', *given.overrides])}")
    print(f"{given.rows:,} rows of {given.tokens:,} tokens on {sheet}\n")
    print(sized_table(found, given.price))
    print("\n".join(["", *(f"assumed: {line}" for line in assumed)]))
